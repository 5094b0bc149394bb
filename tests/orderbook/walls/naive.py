"""
A slow and obvious model of the walls of one book, one price per wall.

It keeps the whole history of a price since the wall was found, and computes the accounts from that
history, in fractions, each time they are read.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median
from typing import Any

from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.messages import Trade
from tests.naive import NaiveBook

KEEP = Fraction(7, 10)
GROWN = Fraction(5, 4)
FALL_MS, REFILL_MS = 5_000, 10_000
SAMPLES = 150


def fraction(number: float) -> Fraction:
    return Fraction(repr(number))


@dataclass
class Change:
    """A change of the level's size between the match times of two book messages."""

    from_ms: int
    to_ms: int
    before: Fraction
    after: Fraction


@dataclass
class Accounts:
    size: Fraction
    peak: Fraction
    traded: Fraction = Fraction(0)
    cancelled: Fraction = Fraction(0)
    refilled: Fraction = Fraction(0)
    eaten: Fraction = Fraction(0)
    pulled: Fraction = Fraction(0)
    unexplained: Fraction = Fraction(0)


@dataclass
class NaiveWall:
    side: str
    price: float
    start: Fraction
    since_ms: int
    first_seen: int
    changes: list[Change] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    low: Fraction = Fraction(0)
    low_from: int = 0
    reported: bool = False
    fallen: int | None = None
    spent: int | None = None
    hidden_from: int | None = None
    hidden_since: int | None = None
    detected: bool = False
    settled: tuple[tuple[int, int], Accounts] | None = None

    @property
    def last_size(self) -> Fraction:
        return self.changes[-1].after if self.changes else self.start

    def is_hit_by(self, trade: Trade) -> bool:
        taker = "Sell" if self.side == "bid" else "Buy"
        hits = trade.side == taker and trade.price == self.price
        return hits and not trade.is_rpi and not trade.is_block

    def accounts(self, until_ms: int) -> Accounts:
        """Return the accounts; if all is older than ``until_ms`` and unchanged, from a cache."""
        key = (len(self.changes), len(self.trades))
        if self.settled is None or self.settled[0] != key:
            accounts = self.compute(until_ms)
            times = [change.to_ms for change in self.changes]
            times += [trade.match_ts_ms for trade in self.trades]
            if all(time_ms < until_ms for time_ms in times):
                self.settled = key, accounts
            return accounts
        return self.settled[1]

    def compute(self, until_ms: int) -> Accounts:
        """Compute the accounts from the start; what is older than ``until_ms`` is settled."""
        left = [fraction(trade.size) for trade in self.trades]
        traded_of = []
        for change in self.changes:
            amount = Fraction(0)
            open_amount = max(Fraction(0), change.before - change.after)
            for number, trade in enumerate(self.trades):
                if change.from_ms <= trade.match_ts_ms <= change.to_ms:
                    taken = min(left[number], open_amount - amount)
                    left[number] -= taken
                    amount += taken
            traded_of.append(amount)
        accounts = Accounts(self.start, self.start)
        for change, traded in zip(self.changes, traded_of, strict=True):
            step = change.after - change.before
            if step > 0:
                refill = min(step, accounts.peak - accounts.size)
                accounts.refilled += refill
                accounts.peak += step - refill
                good = min(refill, accounts.eaten)
                accounts.eaten -= good
                accounts.pulled -= refill - good
            else:
                accounts.traded += traded
                accounts.eaten += traded
                accounts.cancelled += -step - traded
                accounts.pulled += -step - traded
                if change.to_ms >= until_ms:
                    accounts.unexplained += -step - traded
            accounts.size = change.after
        for trade, rest in zip(self.trades, left, strict=True):
            if self.since_ms < trade.match_ts_ms < until_ms:
                accounts.traded += rest
                accounts.refilled += rest
        return accounts


class NaiveWalls:
    """Takes every message; ``update`` returns the events as plain tuples."""

    def __init__(self, config: DensityConfig, *, grace_ms: int, depth: int) -> None:
        self.config, self.range_bps = config, config.range_bps
        self.grace_ms, self.depth = grace_ms, depth
        self.book = NaiveBook()
        self.walls: list[NaiveWall] = []
        self.samples: dict[str, list[tuple[int, float, float]]] = {"bid": [], "ask": []}
        self.match_ms = 0
        self.trades: list[Trade] = []

    def side(self, name: str) -> dict[float, float]:
        return self.book.bids if name == "bid" else self.book.asks

    def on_book(self, raw: dict[str, Any]) -> None:
        self.book.apply(raw)
        for wall in self.walls:
            self._observe(wall, self.match_ms, raw["cts"])
        self.match_ms = raw["cts"]

    def _observe(self, wall: NaiveWall, before_ms: int, now_ms: int) -> None:
        levels = self.side(wall.side)
        worst = min(levels, default=0.0) if wall.side == "bid" else -max(levels, default=0.0)
        place = wall.price if wall.side == "bid" else -wall.price
        if wall.price not in levels and len(levels) >= self.depth and place < worst:
            if wall.hidden_from is None and wall.last_size:
                wall.hidden_from, wall.hidden_since = before_ms, now_ms
            return
        if wall.hidden_from is not None:
            before_ms, wall.hidden_from, wall.hidden_since = wall.hidden_from, None, None
        size = fraction(levels.get(wall.price, 0.0))
        if size != wall.last_size:
            wall.changes.append(Change(before_ms, now_ms, wall.last_size, size))

    def on_trade(self, trade: Trade) -> None:
        self.trades.append(trade)
        for wall in self.walls:
            if wall.is_hit_by(trade) and trade.match_ts_ms >= wall.since_ms:
                wall.trades.append(trade)

    def update(self, now_ms: int) -> list[tuple[Any, ...]]:
        events: list[tuple[Any, ...]] = []
        middle = (max(self.book.bids) + min(self.book.asks)) / 2
        for name in ("bid", "ask"):
            self._sample(name, middle, now_ms)
            for wall in [wall for wall in self.walls if wall.side == name]:
                self._judge(wall, self._threshold(name), middle, now_ms, events)
        for name in ("bid", "ask"):
            threshold = self._threshold(name)
            known = {wall.price for wall in self.walls if wall.side == name}
            for price in sorted(self.side(name), reverse=name == "bid"):
                size = fraction(self.side(name)[price])
                distance = abs(price - middle) / middle * 10_000
                if size >= threshold and distance <= self.range_bps and price not in known:
                    wall = NaiveWall(name, price, size, self.match_ms, now_ms, low=size)
                    self.walls.append(wall)
                    wall.trades = self._later_trades(wall)
                    if not self.config.min_age_s:
                        wall.detected = True
                        events.append(self._event("detected", wall, now_ms))
        return events

    def _sample(self, name: str, middle: float, now_ms: int) -> None:
        samples, levels = self.samples[name], self.side(name)
        spacing_ms = max(1000, self.config.lookback_s * 1000 / SAMPLES)
        if not samples or now_ms - samples[-1][0] >= spacing_ms:
            reach = middle * self.range_bps / 10_000 + 1e-9
            near = [size for price, size in levels.items() if abs(price - middle) <= reach]
            scale = (50 / len(near)) ** 0.5 if near else 0
            share = self.config.min_share * sum(near) * scale
            samples.append((now_ms, median(levels.values()), share))
            start_ms = now_ms - self.config.lookback_s * 1000
            self.samples[name] = [sample for sample in samples if sample[0] > start_ms]

    def _threshold(self, name: str) -> Fraction:
        samples = self.samples[name]
        usual = median(sample for _, sample, _ in samples)
        return fraction(max(self.config.k * usual, median(share for _, _, share in samples)))

    def _judge(
        self, wall: NaiveWall, threshold: Fraction, middle: float, now_ms: int, events: Any
    ) -> None:
        def report(event: str) -> None:
            events.append(self._event(event, wall, now_ms))

        def forget() -> None:
            self.walls.remove(wall)

        if wall.hidden_since is not None:
            self._observe(wall, self.match_ms, self.match_ms)
        accounts = wall.accounts(now_ms - self.grace_ms)
        wall.low = min([wall.low, *(change.after for change in wall.changes[wall.low_from :])])
        size = accounts.size
        is_far = abs(wall.price - middle) / middle * 10_000 > self.range_bps * 1.1
        is_eaten = accounts.eaten >= accounts.peak * Fraction(3, 4)
        is_hidden = wall.hidden_since is not None
        if not wall.detected:
            if is_hidden or is_far or size < threshold * KEEP:
                forget()
            elif now_ms - wall.first_seen >= self.config.min_age_s * 1000:
                wall.detected = True
                self._set_low(wall, size)
                report("detected")
        elif wall.spent is not None:
            if now_ms - wall.spent > REFILL_MS or is_hidden or is_far:
                forget()
            elif size >= threshold:
                self._grow(wall, size)
                report("grown")
        elif is_eaten and not wall.reported:
            wall.reported = True
            self._set_low(wall, size)
            report("eaten")
            if size < threshold * KEEP:
                wall.spent = now_ms
        elif is_far:
            report("removed")
            forget()
        elif wall.hidden_since is not None:
            if now_ms - wall.hidden_since > self.config.lookback_s * 1000:
                report("removed")
                forget()
        elif size < threshold * KEEP:
            wall.fallen = now_ms if wall.fallen is None else wall.fallen
            if wall.reported:
                wall.spent = now_ms
            elif size > accounts.peak * KEEP:
                report("removed")
                forget()
            elif accounts.unexplained and (
                now_ms - wall.fallen <= FALL_MS
                or (
                    accounts.eaten + accounts.unexplained > accounts.pulled - accounts.unexplained
                    and accounts.eaten <= accounts.pulled
                )
            ):
                pass
            elif accounts.eaten <= accounts.pulled:
                report("pulled")
                forget()
            elif size == 0 or now_ms - wall.fallen > FALL_MS:
                wall.reported = True
                self._set_low(wall, size)
                wall.spent = now_ms
                report("eaten")
        else:
            wall.fallen = None
            if size >= wall.low * GROWN:
                self._grow(wall, size)
                report("grown")

    def _grow(self, wall: NaiveWall, size: Fraction) -> None:
        if wall.reported:
            wall.reported, wall.spent, wall.fallen = False, None, None
            wall.start, wall.since_ms, wall.settled = size, self.match_ms, None
            wall.changes, wall.trades = [], self._later_trades(wall)
        self._set_low(wall, size)

    def _later_trades(self, wall: NaiveWall) -> list[Trade]:
        """Return the trades received so far that are newer than the book that shows the wall."""
        return [t for t in self.trades if wall.is_hit_by(t) and t.match_ts_ms > wall.since_ms]

    def _set_low(self, wall: NaiveWall, size: Fraction) -> None:
        wall.low = size
        wall.low_from = len(wall.changes)

    def _event(self, event: str, wall: NaiveWall, now_ms: int) -> tuple[Any, ...]:
        accounts = wall.accounts(now_ms - self.grace_ms)
        return (
            event,
            wall.side,
            wall.price,
            wall.first_seen,
            float(accounts.size),
            float(accounts.peak),
            float(accounts.traded),
            float(accounts.cancelled),
            float(accounts.refilled),
            float(accounts.eaten / accounts.peak),
            float(accounts.pulled / accounts.peak),
        )
