"""
The verdict on a known wall: which event its accounts call for, and whether it is over.

Pure: takes one wall and the time, and knows no books or trades. All times are the exchange's, in
milliseconds.

- Hysteresis: a wall is lost below ``KEEP`` of the threshold that it reached to become one.
- ``detected``: it stayed above that for ``min_age_ms``. A wall that is lost earlier is forgotten
  without an event.
- ``grown``: ``GROWN`` times the smallest size since the last event, also after being eaten.
- ``eaten``: trades took at least ``eaten_ratio`` of the peak. A wall that fell below its threshold
  mostly by trades has ``FALL_MS`` to reach that ratio. After that, or once nothing is left, it is
  ``eaten`` below the ratio too. The event is published once. The wall is kept for ``REFILL_MS``
  after it fell. If it is refilled by then it is ``grown``: the same wall (``first_seen_ms``,
  ``initial_size``) with new accounts.
- ``pulled``: it fell below its threshold mostly by cancellation. Published once no trade can
  explain the decrease any more. If the level keeps shrinking, the event is published ``FALL_MS``
  after the fall, flagged ``uncertain``, as soon as the unexplained part can no longer change the
  outcome.
- ``removed``: it left the range, was out of sight for ``hidden_ms``, or kept its size while the
  threshold rose.

A wall is out of sight while one of its prices is beyond the last visible level. That is no event:
its size is unknown, so there is nothing to judge. What it lost meanwhile is booked when it is
visible again.
"""

from decimal import Decimal
from math import inf
from typing import NamedTuple

from bybit_pipeline.processes.orderbook.walls.account import WallAccount
from bybit_pipeline.shared.wire.orderbook import WallEventName

KEEP = Decimal("0.7")
GROWN = Decimal("1.25")
FALL_MS = 5_000
REFILL_MS = 10_000


class Limits(NamedTuple):
    """
    The limits of one configuration.

    Attributes:
        min_age_ms: How long a wall must last before it is published.
        eaten_ratio: Share of the peak that trades must take.
        hidden_ms: How long a wall may be out of sight.
        grace_ms: How long an open trade or decrease waits for its match.
    """

    min_age_ms: int
    eaten_ratio: Decimal
    hidden_ms: int
    grace_ms: int


class Verdict(NamedTuple):
    """The event to publish, if any, and whether the wall is to be forgotten."""

    event: WallEventName | None
    is_over: bool = False


NO_NEWS = Verdict(None)
FORGOTTEN = Verdict(None, is_over=True)
DETECTED = Verdict("detected")
GREW = Verdict("grown")
EATEN = Verdict("eaten")
PULLED = Verdict("pulled", is_over=True)
REMOVED = Verdict("removed", is_over=True)


def judge(
    wall: WallAccount,
    limits: Limits,
    *,
    threshold: Decimal,
    is_out_of_range: bool,
    now_ms: int,
    match_ms: int,
) -> Verdict:
    """
    Settle the accounts of a wall and return the verdict.

    Args:
        wall: The wall; its accounts and its place in its life are updated.
        limits: The limits of the configuration.
        threshold: Size that makes a wall at present.
        is_out_of_range: True if the wall is too far from the mid price.
        now_ms: Present time.
        match_ms: Match time of the book that shows the present sizes.
    """
    wall.settle(now_ms - limits.grace_ms)
    wall.has_changed = False
    if not wall.is_detected:
        verdict = _judge_new(wall, limits, threshold, is_out_of_range, now_ms)
    elif wall.spent_since_ms is not None:
        verdict = _judge_spent(wall, threshold, is_out_of_range, now_ms, match_ms)
    elif wall.eaten >= limits.eaten_ratio * wall.peak and not wall.is_eaten_reported:
        verdict = _eat(wall, now_ms, is_spent=wall.size < threshold * KEEP)
    elif is_out_of_range:
        verdict = REMOVED
    elif wall.hidden_since_ms is not None:
        verdict = REMOVED if now_ms - wall.hidden_since_ms > limits.hidden_ms else NO_NEWS
    elif wall.size < threshold * KEEP:
        verdict = _judge_fallen(wall, now_ms)
    else:
        wall.fallen_since_ms = None
        verdict = _grow(wall, match_ms) if wall.size >= wall.low * GROWN else NO_NEWS
    wall.wake_ms = wake_ms(wall, limits, now_ms)
    return verdict


def wake_ms(wall: WallAccount, limits: Limits, now_ms: int) -> float:
    """Return the time to judge a wall again even if nothing more happens to it."""
    if wall.spent_since_ms is not None:
        return wall.spent_since_ms + REFILL_MS + 1
    first_ms = wall.first_open_ms()
    due_ms = inf if first_ms is None else first_ms + limits.grace_ms + 1
    if not wall.is_detected:
        due_ms = min(due_ms, wall.first_seen_ms + limits.min_age_ms)
    elif wall.hidden_since_ms is not None:
        due_ms = min(due_ms, wall.hidden_since_ms + limits.hidden_ms + 1)
    elif wall.fallen_since_ms is not None and now_ms <= wall.fallen_since_ms + FALL_MS:
        due_ms = min(due_ms, wall.fallen_since_ms + FALL_MS + 1)
    return due_ms


def _judge_new(
    wall: WallAccount, limits: Limits, threshold: Decimal, is_out_of_range: bool, now_ms: int
) -> Verdict:
    """Judge a wall that is not published yet."""
    is_hidden = wall.hidden_since_ms is not None
    if is_hidden or is_out_of_range or wall.size < threshold * KEEP:
        return FORGOTTEN
    if now_ms - wall.first_seen_ms < limits.min_age_ms:
        return NO_NEWS
    wall.is_detected = True
    wall.low = wall.size
    return DETECTED


def _judge_spent(
    wall: WallAccount, threshold: Decimal, is_out_of_range: bool, now_ms: int, match_ms: int
) -> Verdict:
    """Judge an eaten wall: it grows again if refilled in time, else it is forgotten silently."""
    assert wall.spent_since_ms is not None, "only spent walls come here"
    is_over = now_ms - wall.spent_since_ms > REFILL_MS
    if is_over or wall.hidden_since_ms is not None or is_out_of_range:
        return FORGOTTEN
    return _grow(wall, match_ms) if wall.size >= threshold else NO_NEWS


def _judge_fallen(wall: WallAccount, now_ms: int) -> Verdict:
    """Judge a wall below its threshold."""
    if wall.fallen_since_ms is None:
        wall.fallen_since_ms = now_ms
    if wall.is_eaten_reported:
        _spend(wall, now_ms)
        return NO_NEWS
    if wall.size > wall.peak * KEEP:
        return REMOVED  # it kept its size, the threshold rose
    is_over = now_ms - wall.fallen_since_ms > FALL_MS
    unexplained = wall.unexplained()
    if unexplained:
        # A trade may still move this amount from pulled to eaten.
        is_sure = wall.eaten > wall.pulled or wall.pulled - wall.eaten >= 2 * unexplained
        if not (is_over and is_sure):
            return NO_NEWS
        wall.uncertain = True
    if wall.eaten <= wall.pulled:
        return PULLED
    return _eat(wall, now_ms, is_spent=True) if not wall.size or is_over else NO_NEWS


def _eat(wall: WallAccount, now_ms: int, *, is_spent: bool) -> Verdict:
    wall.is_eaten_reported = True
    wall.low = wall.size
    if is_spent:
        _spend(wall, now_ms)
    return EATEN


def _spend(wall: WallAccount, now_ms: int) -> None:
    """Start the wait for a refill."""
    wall.spent_since_ms = now_ms


def _grow(wall: WallAccount, match_ms: int) -> Verdict:
    if wall.is_eaten_reported:
        wall.restart(match_ms)
    wall.low = wall.size
    return GREW
