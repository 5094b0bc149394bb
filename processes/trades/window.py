"""
Sliding time windows over the trades of one symbol, exact however long they run.

Decides which trades a window holds and what follows from them. Knows nothing of messages, links
or coverage, and reads no clock: the exchange's time comes in as an argument.

All windows share one store. Each stored trade carries the running totals from before it, as exact
integers (``exact``); the sum over a window is the present total minus the one before its first
trade, which a binary search finds. So a trade costs the same with one window or ten, nothing is
subtracted trade by trade, and two integers of any size differ without error.

Columns are arrays: a trade takes 50 bytes in them, and took 230 in lists of objects. On inverse it
takes some 100, as sums of coin need more than 64 bits.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, MutableSequence, Sequence

from msgspec import UNSET

from bybit_pipeline.processes.trades.fixed_point import (
    PLAUSIBLE_MAX,
    PLAUSIBLE_MIN,
    FixedPointScale,
)
from bybit_pipeline.processes.trades.rolling_quantiles import RollingQuantiles
from bybit_pipeline.processes.trades.volatility import PriceSamples
from bybit_pipeline.shared.wire.trades import Window

DEFAULT_MAX_TRADES = 200_000
"""666 trades a second over five minutes: some 20 MB for a symbol, and 30 for the ids."""

_CUT_FROM = 32
_CUT_SHARE = 64
"""
Evicted rows are cut off the front of the columns when they are so many, and a 64th of all rows: at
an eighth or a 64th a trade costs the same, though cutting moves all that stay.
"""

_COIN_BITS = 192
"""Contracts divided by price are kept in units of 2^-192 of the base coin, so that the smallest
plausible quotient still has more digits than a float."""

_NEVER_MS = -(1 << 62)
_NO_QUANTILES: Mapping[str, float] = {}

Totals = MutableSequence[int]
"""A column of running totals: an array of 64 bits, or a list when they do not fit."""


class TradeWindows:
    """
    The trades of the last ``retention_ms``, readable through any window up to that length.

    A window of W milliseconds holds the trades with ``now - W < match_ts <= now``. ``now_ms`` is
    the exchange's time; it never goes back, and a trade from after it moves it forward. Trades
    may arrive in any order: a late one is put where it belongs, at a cost that grows with the
    number of trades after it.

    Memory is bounded by ``max_trades``. Over it, the oldest millisecond is dropped with all its
    trades; ``trades_dropped`` counts them, and the store is complete only for times after
    ``dropped_through_ms``.
    """

    def __init__(
        self, *, retention_ms: int, is_inverse: bool = False, max_trades: int = DEFAULT_MAX_TRADES
    ) -> None:
        self.now_ms: int | None = None
        self.trades_total = 0
        self.trades_dropped = 0
        self.dropped_through_ms = _NEVER_MS
        self._retention_ms = retention_ms
        self._is_inverse = is_inverse
        self._max_trades = max_trades
        self._price_scale = FixedPointScale()
        self._size_scale = FixedPointScale()
        # One row a trade, oldest first; rows before _head are evicted, and _cut rows are gone from
        # the columns. The last three columns hold the totals of the rows before this one.
        self._head = 0
        self._cut = 0
        self._ts = array("q")
        self._prices = array("d")
        self._sizes = array("d")
        self._bought: Totals = array("q")
        self._sold: Totals = array("q")
        self._weighted: Totals = array("q")
        # Totals over every stored or evicted row since they were last counted anew, in units.
        # "Weighted" is price * size, or on inverse size / price.
        self._total_bought = 0
        self._total_sold = 0
        self._total_weighted = 0
        self._unstored_delta = 0
        self._size_orders: dict[int, RollingQuantiles] = {}
        self._samples: dict[int, PriceSamples] = {}
        self._highs = _MonotonicQueue(sign=1)
        self._lows = _MonotonicQueue(sign=-1)
        self._extremes_end = 0
        """The first row that is not in the extremes yet."""

    def __len__(self) -> int:
        """Number of trades held."""
        self._evict()
        return len(self._ts) - self._head

    @property
    def cvd(self) -> float:
        """Cumulative volume delta: bought minus sold size of every trade ever added."""
        delta = self._total_bought - self._total_sold + self._unstored_delta
        return delta / self._size_scale.scale

    def add(self, match_ts_ms: int, price: float, size: float, *, is_buy: bool) -> None:
        """
        Take in one trade. O(1) amortised for the newest, O(trades after it) for a late one.

        One older than the retention counts in ``trades_total`` and ``cvd`` and in no window.

        Raises:
            ValueError: If price or size is not a positive number of a believable magnitude.
        """
        # Not is_plausible: the calls would cost 0.1 us a trade.
        if not (PLAUSIBLE_MIN <= price <= PLAUSIBLE_MAX and PLAUSIBLE_MIN <= size <= PLAUSIBLE_MAX):
            raise ValueError(f"trade with price {price!r} and size {size!r}")
        size_units = self._size_scale.units(size)
        if size_units is None:
            size_units = self._refine_size(size)
        price_units = self._price_scale.units(price)
        if price_units is None:
            price_units = self._refine_price(price)
        self.trades_total += 1
        if self.now_ms is None or match_ts_ms > self.now_ms:
            self.now_ms = match_ts_ms
        if match_ts_ms <= max(self.now_ms - self._retention_ms, self.dropped_through_ms):
            self._unstored_delta += size_units if is_buy else -size_units
            return
        if self._is_inverse:
            weighted = self._coin_units(size_units, price_units)
        else:
            weighted = price_units * size_units
        bought, sold = (size_units, 0) if is_buy else (0, size_units)
        ts = self._ts
        if ts and match_ts_ms < ts[-1]:
            self._insert(match_ts_ms, price, size, bought, sold, weighted)
        else:
            try:
                self._weighted.append(self._total_weighted)
                self._bought.append(self._total_bought)
                self._sold.append(self._total_sold)
            except OverflowError:
                self._append_anew()
            ts.append(match_ts_ms)
            self._prices.append(price)
            self._sizes.append(size)
        self._total_bought += bought
        self._total_sold += sold
        self._total_weighted += weighted
        if len(ts) - self._head > self._max_trades and len(self) > self._max_trades:
            self._drop_oldest()

    def advance(self, now_ms: int) -> None:
        """Move the exchange's time forward; it never goes back."""
        if self.now_ms is None or now_ms > self.now_ms:
            self.now_ms = now_ms

    def count(self, window_ms: int) -> int:
        """Number of trades in the last ``window_ms``, at most the retention. O(log n)."""
        return len(self._ts) - self._window(window_ms)[1]

    def measures(
        self,
        window_ms: int,
        *,
        coverage_s: float = 0.0,
        with_volatility: bool = False,
        quantiles: Mapping[str, float] = _NO_QUANTILES,
    ) -> Window:
        """
        Measures of the last ``window_ms``; each number is the float nearest to the exact result.

        O(log n) for the sums; see ``realised_volatility`` and ``size_quantiles`` for the others.

        On inverse a VWAP is a quotient, which has no last digit: one exactly between two floats,
        which takes a price above 2^53, may become the one that is not even.

        Args:
            window_ms: Length of the window, at most the retention.
            coverage_s: How much of the window was observed; only copied into the result.
            with_volatility: Also measure ``realised_volatility``.
            quantiles: Probabilities of the size quantiles, by their name in the result.
        """
        self._note_extremes()
        self._evict()
        start_ms, first = self._window(window_ms)
        trades = len(self._ts) - first
        volatility = self.realised_volatility(window_ms) if with_volatility else UNSET
        sizes = self._named_quantiles(window_ms, quantiles) if quantiles else UNSET
        if not trades:
            return Window(
                trades=0,
                tpm=0.0,
                tps=0.0,
                volume=0.0,
                buy_volume=0.0,
                sell_volume=0.0,
                vol_delta=0.0,
                turnover=0.0,
                coverage_s=coverage_s,
                realised_volatility=volatility,
                size_quantiles=sizes,
            )
        bought = self._total_bought - self._bought[first]
        sold = self._total_sold - self._sold[first]
        weighted = self._total_weighted - self._weighted[first]
        volume = bought + sold
        scale = self._size_scale.scale
        if self._is_inverse:
            turnover = volume / scale
            vwap = (volume << _COIN_BITS) / (weighted * scale)
        else:
            turnover = weighted / (scale * self._price_scale.scale)
            vwap = weighted / (volume * self._price_scale.scale)
        return Window(
            trades=trades,
            tpm=trades * 60_000 / window_ms,
            tps=trades * 1_000 / window_ms,
            volume=volume / scale,
            buy_volume=bought / scale,
            sell_volume=sold / scale,
            vol_delta=(bought - sold) / scale,
            buy_sell_ratio=bought / sold if sold else None,
            buy_share=bought / volume,
            turnover=turnover,
            vwap=vwap,
            high=self._highs.since(start_ms),
            low=self._lows.since(start_ms),
            coverage_s=coverage_s,
            realised_volatility=volatility,
            size_quantiles=sizes,
        )

    def realised_volatility(self, window_ms: int, sample_ms: int = 1_000) -> float | None:
        """
        Realised volatility over the window, as a fraction, not annualised; None below two samples.

        ``sqrt(sum(ln(p[i] / p[i-1]) ** 2))`` over prices sampled at every whole ``sample_ms`` of
        exchange time, each the last trade at or before that instant and inside the window
        (previous-tick sampling). Andersen, Bollerslev, Diebold and Labys, "Modeling and
        Forecasting Realized Volatility", Econometrica 71(2), 2003. Sampling keeps the bounce
        between bid and ask, which every single trade would add, from passing for volatility.

        O(log n), and O(1) for each trade since the last call. The sample at the window's first
        instant is of a trade inside it, because the last trade before an instant is the newest.
        """
        _, row = self._window(window_ms)
        ts = self._ts
        if row == len(ts) or self.now_ms is None:
            return None
        samples = self._samples.get(sample_ms)
        if samples is None:
            samples = self._samples[sample_ms] = PriceSamples(sample_ms)
        samples.move(ts, self._prices, self._cut, self._head)
        first_ms = -(-ts[row] // sample_ms) * sample_ms
        last_ms = self.now_ms // sample_ms * sample_ms
        if last_ms - first_ms < sample_ms:
            return None
        return samples.volatility(first_ms, last_ms)

    def size_quantiles(
        self, window_ms: int, probabilities: Sequence[float]
    ) -> tuple[float, ...] | None:
        """
        Quantiles of the trade sizes in the window, one for each probability in (0, 1].

        The smallest size that at least that share of the trades does not exceed (Hyndman and Fan,
        "Sample Quantiles in Statistical Packages", The American Statistician 50(4), 1996,
        definition 1), so each is a size that was traded. None without trades. O(log n) for each
        trade that came or went since the same window was asked last.
        """
        _, first = self._window(window_ms)
        order = self._size_orders.get(window_ms)
        if order is None:
            order = self._size_orders[window_ms] = RollingQuantiles()
        order.move(self._sizes, self._cut, self._cut + first, self._cut + len(self._sizes))
        return order.quantiles(probabilities)

    def _named_quantiles(
        self, window_ms: int, quantiles: Mapping[str, float]
    ) -> dict[str, float | None]:
        sizes = self.size_quantiles(window_ms, tuple(quantiles.values()))
        if sizes is None:
            return dict.fromkeys(quantiles)
        return dict(zip(quantiles, sizes, strict=True))

    def _window(self, window_ms: int) -> tuple[int, int]:
        """Time after which the window begins, and the row of its first trade."""
        if window_ms > self._retention_ms:
            raise ValueError(f"window of {window_ms} ms, but {self._retention_ms} ms are kept")
        if self.now_ms is None:
            return _NEVER_MS, len(self._ts)
        start_ms = max(self.now_ms - window_ms, self.dropped_through_ms)
        return start_ms, bisect_right(self._ts, start_ms, self._head)

    def _insert(
        self, ts: int, price: float, size: float, bought: int, sold: int, weighted: int
    ) -> None:
        self._note_extremes()
        self._extremes_end += 1
        at = bisect_right(self._ts, ts, self._head)
        self._ts.insert(at, ts)
        self._prices.insert(at, price)
        self._sizes.insert(at, size)
        self._bought = _inserted(self._bought, at, bought)
        self._sold = _inserted(self._sold, at, sold)
        self._weighted = _inserted(self._weighted, at, weighted)
        self._highs.insert(ts, price)
        self._lows.insert(ts, price)
        for order in self._size_orders.values():
            order.invalidate()
        for sample in self._samples.values():
            sample.invalidate()

    def _evict(self) -> None:
        """
        Let go of what is too old: when measures are read and when memory is short.

        Not for every trade, where it cost 0.5 us: no window reaches back that far anyway.
        """
        if self.now_ms is None:
            return
        floor_ms = max(self.now_ms - self._retention_ms, self.dropped_through_ms)
        if self._head == len(self._ts) or self._ts[self._head] > floor_ms:
            return
        self._note_extremes()
        self._head = bisect_right(self._ts, floor_ms, self._head)
        self._highs.evict(floor_ms)
        self._lows.evict(floor_ms)
        if _is_worth_cutting(self._head, len(self._ts)):
            for order in self._size_orders.values():
                order.let_go(self._sizes, self._cut, self._cut + self._head)
            for column in (
                self._ts,
                self._prices,
                self._sizes,
                self._bought,
                self._sold,
                self._weighted,
            ):
                del column[: self._head]
            self._cut += self._head
            self._extremes_end -= self._head
            self._head = 0

    def _note_extremes(self) -> None:
        """
        Bring highs and lows up to date: when measures are read and before rows are moved.

        All new rows at once: 0.3 us a trade, where one by one as they come it is 0.4.
        """
        if self._extremes_end < len(self._ts):
            times, prices = self._ts[self._extremes_end :], self._prices[self._extremes_end :]
            self._extremes_end = len(self._ts)
            self._highs.extend(times, prices)
            self._lows.extend(times, prices)

    def _drop_oldest(self) -> None:
        """Make room by giving up the oldest millisecond, so that the rest is complete."""
        held = len(self)
        self.dropped_through_ms = self._ts[self._head]
        self._evict()
        self.trades_dropped += held - len(self)

    def _append_anew(self) -> None:
        """Append the totals, counted from the first row held, because 64 bits were too few."""
        rows = len(self._ts)
        bought, sold, weighted = self._total_bought, self._total_sold, self._total_weighted
        if self._head < rows:
            bought, sold = self._bought[self._head], self._sold[self._head]
            weighted = self._weighted[self._head]
        self._unstored_delta += bought - sold
        self._total_bought -= bought
        self._total_sold -= sold
        self._total_weighted -= weighted
        # The failed attempt may have appended one of them.
        self._bought = _column([*(at - bought for at in self._bought[:rows]), self._total_bought])
        self._sold = _column([*(at - sold for at in self._sold[:rows]), self._total_sold])
        self._weighted = _column(
            [*(at - weighted for at in self._weighted[:rows]), self._total_weighted]
        )

    def _refine_size(self, size: float) -> int:
        factor = self._size_scale.refine(size)
        self._total_bought *= factor
        self._total_sold *= factor
        self._unstored_delta *= factor
        self._bought = _column([units * factor for units in self._bought])
        self._sold = _column([units * factor for units in self._sold])
        if not self._is_inverse:
            self._refine_weighted(factor)
        units = self._size_scale.units(size)
        assert units is not None
        return units

    def _refine_price(self, price: float) -> int:
        factor = self._price_scale.refine(price)
        if not self._is_inverse:
            self._refine_weighted(factor)
        units = self._price_scale.units(price)
        assert units is not None
        return units

    def _refine_weighted(self, factor: int) -> None:
        self._total_weighted *= factor
        self._weighted = _column([units * factor for units in self._weighted])

    def _coin_units(self, size_units: int, price_units: int) -> int:
        """Coin that the contracts are worth, in units of 2^-192, rounded down."""
        coins = (size_units * self._price_scale.scale) << _COIN_BITS
        return coins // (price_units * self._size_scale.scale)


def _column(totals: Sequence[int]) -> Totals:
    """Running totals as an array, or as a list when 64 bits are too few."""
    try:
        return array("q", totals)
    except OverflowError:
        return list(totals)


def _inserted(column: Totals, at: int, units: int) -> Totals:
    """The column with a row put in before another, which adds so many units to all after it."""
    later = _column([column[at], *(before + units for before in column[at:])])
    if type(later) is type(column):
        column[at:] = later
        return column
    return [*column[:at], *later]


def _is_worth_cutting(evicted: int, rows: int) -> bool:
    return evicted >= _CUT_FROM and evicted * _CUT_SHARE >= rows


class _MonotonicQueue:
    """
    Highest (sign 1) or lowest (sign -1) price since any time, by a monotonic queue.

    Holds only the trades that no later trade beats: times rise, prices times the sign fall, so the
    extreme since a time is the first entry after it.
    """

    __slots__ = ("_head", "_prices", "_sign", "_ts")

    def __init__(self, *, sign: int) -> None:
        self._sign = sign
        self._head = 0
        self._ts: list[int] = []
        self._prices: list[float] = []
        """Times the sign."""

    def extend(self, times: Sequence[int], prices: Sequence[float]) -> None:
        """Take in the newest trades."""
        held_ts, held, sign, head = self._ts, self._prices, self._sign, self._head
        for ts, price in zip(times, prices, strict=True):
            signed = price * sign
            while len(held) > head and held[-1] <= signed:
                held.pop()
                held_ts.pop()
            held.append(signed)
            held_ts.append(ts)

    def insert(self, ts: int, price: float) -> None:
        """Take in a trade that is older than some already there."""
        signed = price * self._sign
        at = bisect_right(self._ts, ts, self._head)
        if at < len(self._ts) and self._prices[at] >= signed:
            return
        start = at
        while start > self._head and self._prices[start - 1] <= signed:
            start -= 1
        self._ts[start:at] = [ts]
        self._prices[start:at] = [signed]

    def evict(self, floor_ms: int) -> None:
        """Forget everything up to and including a time."""
        self._head = bisect_right(self._ts, floor_ms, self._head)
        if _is_worth_cutting(self._head, len(self._ts)):
            del self._ts[: self._head], self._prices[: self._head]
            self._head = 0

    def since(self, start_ms: int) -> float | None:
        """The extreme of the trades after a time; None without any."""
        at = bisect_right(self._ts, start_ms, self._head)
        return self._prices[at] * self._sign if at < len(self._ts) else None
