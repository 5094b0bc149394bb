"""
The judgement: how long a view still said ``live`` after its numbers had stopped. Reads no clock.

A *view* shows *topics*; what it shows of one is a *claim*: live or not, and the time of the data.
From the moment of a fault a live claim is *frozen* if its data are not newer than the fault. It
ends when the view says something else, or shows newer data. Times are seconds of one wall clock,
which the simulated exchange shares.

Trades need not be newer on a connection that was made or proven after the fault: nobody may have
traded since. They are current if the message says that the connection is alive (``alive_ts_ns``).
"""

import math
import threading
from collections.abc import Iterable
from typing import NamedTuple

Key = tuple[str, str]
"""View and topic."""
ALIVE_S = 2.0
"""A connection that was last heard from before this time has not proved alive."""
TRUTH = "subscriber"
"""The view that decides when everything is current again."""


class Claim(NamedTuple):
    """What a view shows of a topic."""

    is_live: bool
    data_at: float | None = None
    """Exchange time of the newest data behind the numbers; None if the view does not tell."""
    alive_at: float | None = None
    """When the connection was last heard from; None for books, which only data make current."""


NOT_LIVE = Claim(False)


class Verdict(NamedTuple):
    """The outcome of one fault for one view: the worst of its topics."""

    frozen_s: float
    is_open: bool
    """True if the view still said live when the observation ended."""
    returned_s: float
    """Greatest age of live data after the fault was lifted."""


class Watch:
    """
    The claims on one topic since a fault.

    Args:
        fault_at: Time of the fault.
        claim: The claim at that time.
        seen_at: When that was made.
        trusts_alive: Whether the fault is one of the connection or of a process, so that a live
            connection proves the end of it.
    """

    def __init__(
        self, fault_at: float, claim: Claim, seen_at: float, *, trusts_alive: bool
    ) -> None:
        self.is_frozen = claim.is_live
        self.is_current = False
        self.returned_s = 0.0
        self._fault_at = fault_at
        self._until = max(fault_at, seen_at)
        self._trusts_alive = trusts_alive

    def see(self, claim: Claim, now: float, *, is_lifted: bool) -> None:
        """Take in a claim."""
        if claim.data_at is None:
            is_frozen = self.is_frozen and claim.is_live
        else:
            is_new = claim.data_at > self._fault_at or self._is_alive(claim, now)
            is_frozen = claim.is_live and not is_new
            self.is_current = claim.is_live and is_new
            if is_lifted and claim.is_live and not self._is_alive(claim, now):
                self.returned_s = max(self.returned_s, now - claim.data_at)
        if self.is_frozen and not is_frozen:
            self._until = now
        self.is_frozen = is_frozen

    def _is_alive(self, claim: Claim, now: float) -> bool:
        """True if nothing was received since the fault, over a connection that has proved alive."""
        assert claim.data_at is not None
        alive_at = claim.alive_at
        return (
            self._trusts_alive
            and alive_at is not None
            and claim.data_at <= self._fault_at < alive_at
            and now - alive_at <= ALIVE_S
        )

    def frozen_s(self, now: float) -> float:
        """Seconds from the fault to the end of the last frozen claim."""
        return (now if self.is_frozen else self._until) - self._fault_at


class Judge:
    """The claims of all views, and the watches on those that a fault concerns. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[Key, tuple[Claim, float]] = {}
        self._live_since: dict[Key, float] = {}
        self._watches: dict[Key, Watch] = {}
        self._is_lifted = False

    def see(self, view: str, topic: str, claim: Claim, *, now: float) -> None:
        """Take in what a view shows of a topic."""
        with self._lock:
            self._claims[view, topic] = claim, now
            if claim.is_live:
                self._live_since.setdefault((view, topic), now)
            else:
                self._live_since.pop((view, topic), None)
            watch = self._watches.get((view, topic))
            if watch is not None:
                watch.see(claim, now, is_lifted=self._is_lifted)
                if view == TRUTH and watch.is_current:
                    self._end_timeless(now)

    def _end_timeless(self, now: float) -> None:
        """A view without times is right to say live once everything is current again."""
        if all(watch.is_current for key, watch in self._watches.items() if key[0] == TRUTH):
            for key, watch in self._watches.items():
                if self._claims[key][0].data_at is None:
                    watch.see(NOT_LIVE, now, is_lifted=False)

    def begin(self, keys: Iterable[Key], *, now: float, trusts_alive: bool) -> None:
        """Watch topics from the moment of a fault."""
        with self._lock:
            self._is_lifted = False
            self._watches = {
                key: Watch(now, *self._claims[key], trusts_alive=trusts_alive) for key in keys
            }

    def lift(self) -> None:
        """The fault has ended: from now on live data must be current."""
        with self._lock:
            self._is_lifted = True

    def is_frozen(self, views: Iterable[str]) -> bool:
        """True while one of the views still says live."""
        with self._lock:
            return any(w.is_frozen for (view, _), w in self._watches.items() if view in views)

    def are_live_since(self, keys: Iterable[Key], since: float) -> bool:
        """True if all claims have been live without interruption since a time."""
        with self._lock:
            return all(self._live_since.get(key, math.inf) <= since for key in keys)

    def stale(self, keys: Iterable[Key], *, fresh_s: float, now: float) -> list[Key]:
        """The claims that are not live, or whose data are older than ``fresh_s``."""
        with self._lock:
            return [key for key in keys if not self._is_fresh(key, now - fresh_s)]

    def _is_fresh(self, key: Key, since: float) -> bool:
        claim, _ = self._claims.get(key, (NOT_LIVE, 0.0))
        return claim.is_live and (claim.data_at is None or claim.data_at >= since)

    def oldest(self) -> tuple[Key, float]:
        """The claim with the oldest live data after the fault was lifted, and their age."""
        with self._lock:
            key = max(self._watches, key=lambda key: self._watches[key].returned_s)
            return key, self._watches[key].returned_s

    def end(self, view: str, *, now: float) -> Verdict:
        """The verdict on one view."""
        with self._lock:
            watches = [w for (name, _), w in self._watches.items() if name == view]
            return Verdict(
                max(watch.frozen_s(now) for watch in watches),
                any(watch.is_frozen for watch in watches),
                max(watch.returned_s for watch in watches),
            )
