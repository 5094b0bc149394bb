"""
Sliding time windows over the trades of one symbol, exact however long they run.

Decides which trades a window holds, and its measures. Knows nothing of messages, links or coverage,
and reads no clock: the exchange's time is an argument.

All windows share one store. Each stored trade carries the running totals before it, as exact
integers (``fixed_point``). The sum over a window is the present total minus the total before its
first trade, which a binary search finds. So a trade costs the same with one window or ten, and no
error can accumulate.

Columns are arrays, because these take a fifth of the memory of lists. On inverse, sums of coin need
more than 64 bits and are kept in lists.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, MutableSequence, Sequence

from msgspec import UNSET

from bybit_pipeline.processes.trades.monotonic import MonotonicQueue, should_trim
from bybit_pipeline.processes.trades.rolling_quantiles import RollingQuantiles
from bybit_pipeline.processes.trades.volatility import PriceSamples
from bybit_pipeline.shared.fixed_point import (
    PLAUSIBLE_MAX,
    PLAUSIBLE_MIN,
    FixedPointScale,
)
from bybit_pipeline.shared.wire.trades import Window

DEFAULT_MAX_TRADES = 200_000
"""
Enough for 666 trades a second over five minutes: about 20 MB for the windows of one symbol, and
40 MB for its trade ids.
"""

_COIN_BITS = 192
"""
Contracts divided by price are kept in units of 2^-192 of the base coin, so that the smallest
plausible quotient still has more digits than a float.
"""

_NEVER_MS = -(1 << 62)
_NO_QUANTILES: Mapping[str, float] = {}

Totals = MutableSequence[int]
"""A column of running totals: an array of 64-bit integers, or a list if they do not fit."""


class TradeWindows:
    """
    The trades of the last ``retention_ms``, read through windows of any length up to that.

    A window of W milliseconds holds the trades with ``now - W < match_ts <= now``. Trades may
    arrive in any order; a late one is inserted at its place, which costs more the more trades
    follow it.

    Args:
        retention_ms: Length of the longest window.
        is_inverse: True if sizes are contracts of 1 USD.
        max_trades: Number of trades held. With more, all trades of the oldest millisecond are
            dropped.

    Attributes:
        now_ms: The exchange's time. It never goes back; a trade in the future moves it forward.
        trades_total: Number of trades added so far.
        trades_dropped: Number of trades dropped because there were too many.
        dropped_through_ms: The store is complete only after this time.
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
        # One row per trade, oldest first. Rows before _head are evicted; _deleted counts the rows
        # already deleted from the columns. The last three hold the totals of all rows before.
        self._head = 0
        self._deleted = 0
        self._ts = array("q")
        self._prices = array("d")
        self._sizes = array("d")
        self._bought: Totals = array("q")
        self._sold: Totals = array("q")
        self._weighted: Totals = array("q")
        # Totals over all stored and evicted rows since the last rebase, in units. "Weighted" is
        # price * size, or size / price on inverse.
        self._total_bought = 0
        self._total_sold = 0
        self._total_weighted = 0
        self._unstored_delta = 0
        self._size_quantiles: dict[int, RollingQuantiles] = {}
        self._samples: dict[int, PriceSamples] = {}
        self._highs = MonotonicQueue(sign=1)
        self._lows = MonotonicQueue(sign=-1)
        self._extremes_end = 0
        """First row that is not in the highs and lows yet."""

    def __len__(self) -> int:
        """Return the number of trades held."""
        self._evict()
        return len(self._ts) - self._head

    @property
    def cvd(self) -> float:
        """Cumulative volume delta: size bought minus size sold over all trades added so far."""
        delta = self._total_bought - self._total_sold + self._unstored_delta
        return delta / self._size_scale.scale

    def add(self, match_ts_ms: int, price: float, size: float, *, is_buy: bool) -> None:
        """
        Add one trade. O(1) amortised for the newest trade, O(trades after it) for a late one.

        A trade older than the retention counts in ``trades_total`` and ``cvd``, but in no window.

        Raises:
            ValueError: If price or size is not plausible (see ``fixed_point.is_plausible``).
        """
        # Inlined is_plausible: this is called for every trade.
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
                self._append_rebased()
            ts.append(match_ts_ms)
            self._prices.append(price)
            self._sizes.append(size)
        self._total_bought += bought
        self._total_sold += sold
        self._total_weighted += weighted
        if len(ts) - self._head > self._max_trades and len(self) > self._max_trades:
            self._drop_oldest()

    def advance(self, now_ms: int) -> None:
        """Move the exchange's time forward to ``now_ms``; an earlier time changes nothing."""
        if self.now_ms is None or now_ms > self.now_ms:
            self.now_ms = now_ms

    def count(self, window_ms: int) -> int:
        """Return the number of trades in the last ``window_ms``, up to the retention. O(log n)."""
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
        Return the measures of the last ``window_ms``; each number is the float nearest to the exact
        result.

        O(log n) for the sums; see ``realised_volatility`` and ``size_quantiles`` for the others.

        Exception: on inverse, a VWAP exactly between two floats may become the one that is not
        even. This takes a price above 2^53.

        Args:
            window_ms: Length of the window, at most the retention.
            coverage_s: How much of the window was observed; copied into the result.
            with_volatility: True to measure ``realised_volatility`` too.
            quantiles: Probabilities of the size quantiles, by their name in the result.
        """
        self._update_extremes()
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
        Return the realised volatility of the window: a fraction, not annualised.

        ``sqrt(sum(ln(p[i] / p[i-1]) ** 2))`` over prices sampled at every whole ``sample_ms`` of
        exchange time. Each sample is the last trade at or before that instant and inside the window
        (previous-tick sampling): Andersen, Bollerslev, Diebold and Labys, "Modeling and Forecasting
        Realized Volatility", Econometrica 71(2), 2003. Without sampling, every bounce of the price
        between bid and ask would count as volatility.

        None with fewer than two samples. O(log n), and O(1) for each trade since the last call.
        """
        _, row = self._window(window_ms)
        ts = self._ts
        if row == len(ts) or self.now_ms is None:
            return None
        samples = self._samples.get(sample_ms)
        if samples is None:
            samples = self._samples[sample_ms] = PriceSamples(sample_ms)
        samples.move(ts, self._prices, self._deleted, self._head)
        first_ms = -(-ts[row] // sample_ms) * sample_ms
        last_ms = self.now_ms // sample_ms * sample_ms
        if last_ms - first_ms < sample_ms:
            return None
        return samples.volatility(first_ms, last_ms)

    def size_quantiles(
        self, window_ms: int, probabilities: Sequence[float]
    ) -> tuple[float, ...] | None:
        """
        Return one quantile of the trade sizes in the window for each probability in (0, 1].

        The quantile of p is the smallest size such that at least a fraction p of the trades is not
        larger (Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American
        Statistician 50(4), 1996, definition 1), so it is the size of a trade.

        None without trades. O(log n) for each trade that entered or left the window since the last
        call with the same window.
        """
        _, first = self._window(window_ms)
        rolling = self._size_quantiles.get(window_ms)
        if rolling is None:
            rolling = self._size_quantiles[window_ms] = RollingQuantiles()
        rolling.move(
            self._sizes, self._deleted, self._deleted + first, self._deleted + len(self._sizes)
        )
        return rolling.quantiles(probabilities)

    def _named_quantiles(
        self, window_ms: int, quantiles: Mapping[str, float]
    ) -> dict[str, float | None]:
        sizes = self.size_quantiles(window_ms, tuple(quantiles.values()))
        if sizes is None:
            return dict.fromkeys(quantiles)
        return dict(zip(quantiles, sizes, strict=True))

    def _window(self, window_ms: int) -> tuple[int, int]:
        """Return the time after which the window begins, and the row of its first trade."""
        if window_ms > self._retention_ms:
            raise ValueError(f"window of {window_ms} ms; at most {self._retention_ms} ms are kept")
        if self.now_ms is None:
            return _NEVER_MS, len(self._ts)
        start_ms = max(self.now_ms - window_ms, self.dropped_through_ms)
        return start_ms, bisect_right(self._ts, start_ms, self._head)

    def _insert(
        self, ts: int, price: float, size: float, bought: int, sold: int, weighted: int
    ) -> None:
        self._update_extremes()
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
        for rolling in self._size_quantiles.values():
            rolling.invalidate()
        for sample in self._samples.values():
            sample.invalidate()

    def _evict(self) -> None:
        """
        Remove trades older than the retention.

        Called when measures are read and when there are too many trades, not for every trade: no
        window reaches back that far anyway.
        """
        if self.now_ms is None:
            return
        floor_ms = max(self.now_ms - self._retention_ms, self.dropped_through_ms)
        if self._head == len(self._ts) or self._ts[self._head] > floor_ms:
            return
        self._update_extremes()
        self._head = bisect_right(self._ts, floor_ms, self._head)
        self._highs.evict(floor_ms)
        self._lows.evict(floor_ms)
        if should_trim(self._head, len(self._ts)):
            for rolling in self._size_quantiles.values():
                rolling.drop_before(self._sizes, self._deleted, self._deleted + self._head)
            for column in (
                self._ts,
                self._prices,
                self._sizes,
                self._bought,
                self._sold,
                self._weighted,
            ):
                del column[: self._head]
            self._deleted += self._head
            self._extremes_end -= self._head
            self._head = 0

    def _update_extremes(self) -> None:
        """Add the new rows to highs and lows, before these are read and before rows move."""
        if self._extremes_end < len(self._ts):
            times, prices = self._ts[self._extremes_end :], self._prices[self._extremes_end :]
            self._extremes_end = len(self._ts)
            self._highs.extend(times, prices)
            self._lows.extend(times, prices)

    def _drop_oldest(self) -> None:
        """Drop all trades of the oldest millisecond; all other milliseconds stay complete."""
        held = len(self)
        self.dropped_through_ms = self._ts[self._head]
        self._evict()
        self.trades_dropped += held - len(self)

    def _append_rebased(self) -> None:
        """Append totals that overflow 64 bits, after rebasing all totals to the first row."""
        rows = len(self._ts)
        bought, sold, weighted = self._total_bought, self._total_sold, self._total_weighted
        if self._head < rows:
            bought, sold = self._bought[self._head], self._sold[self._head]
            weighted = self._weighted[self._head]
        self._unstored_delta += bought - sold
        self._total_bought -= bought
        self._total_sold -= sold
        self._total_weighted -= weighted
        # The failed attempt may have appended to one of the columns: hence [:rows].
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
        """Return the coin that the contracts are worth, in units of 2^-192, rounded down."""
        coins = (size_units * self._price_scale.scale) << _COIN_BITS
        return coins // (price_units * self._size_scale.scale)


def _column(totals: Sequence[int]) -> Totals:
    """Return running totals as an array, or as a list if they do not fit into 64 bits."""
    try:
        return array("q", totals)
    except OverflowError:
        return list(totals)


def _inserted(column: Totals, at: int, units: int) -> Totals:
    """Return the column with a row inserted at ``at``, which adds ``units`` to all later totals."""
    later = _column([column[at], *(before + units for before in column[at:])])
    if type(later) is type(column):
        column[at:] = later
        return column
    return [*column[:at], *later]
