"""What is usual on one side of a book, and the size that makes a level there a wall."""

from array import array
from bisect import bisect_left, bisect_right, insort
from math import sqrt
from statistics import median

from bybit_pipeline.processes.orderbook.book import BookSide
from bybit_pipeline.processes.orderbook.measures import band
from bybit_pipeline.shared.settings.config import DensityConfig

SAMPLE_MS = 1_000
MAX_SAMPLES = 150
SHARE_LEVELS = 50
"""Number of levels for which ``min_share`` is meant."""
BACK_MS = 60_000
"""A step back in exchange time that is larger than this starts over; a smaller one is ignored."""


class MovingMedian:
    """
    Median of the samples that are kept; ``drop`` the oldest ones yourself.

    The samples are in arrays, which use a fifth of the memory of lists and are cheap to insert
    into at this length.
    """

    __slots__ = ("_samples", "_sorted")

    def __init__(self) -> None:
        self._samples = array("d")
        self._sorted = array("d")

    def add(self, sample: float) -> None:
        """Add the newest sample."""
        self._samples.append(sample)
        insort(self._sorted, sample)

    def drop(self, count: int) -> None:
        """Drop the ``count`` oldest samples."""
        for sample in self._samples[:count]:
            del self._sorted[bisect_left(self._sorted, sample)]
        del self._samples[:count]

    def value(self) -> float:
        """Return the median of at least one sample."""
        ordered = self._sorted
        count = len(ordered)
        return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


class Baseline:
    """
    The usual size of a level and of a whole side, as medians over the look-back.

    A level is a wall if it is large by both measures: ``k`` times the median level, and a share of
    the total size within range. The first one alone finds a hundred walls in a busy book, where
    most levels are tiny and sizes differ by factors of a thousand. The second one limits their
    number by construction: at most ``1 / min_share`` levels hold ``min_share`` of the total each.

    The share is ``min_share`` for ``SHARE_LEVELS`` levels. A deeper side has a larger total, so the
    same share would hide all its walls. The share therefore falls with the square root of the
    number of levels. That keeps the number of walls steady if the number of levels larger than x
    falls like ``1 / x ** 2``, which is about what recorded books show.

    Both are sampled once a second; with a long look-back less often, so that there are up to
    ``MAX_SAMPLES`` samples.

    Attributes:
        level: The median over the look-back of the median level size; None before the first sample.
        threshold: The size of a wall; infinite before the first sample.
    """

    __slots__ = (
        "_band",
        "_k",
        "_levels",
        "_lookback_ms",
        "_min_share",
        "_shares",
        "_spacing_ms",
        "_times",
        "level",
        "threshold",
    )

    def __init__(self, settings: DensityConfig) -> None:
        self._k = settings.k
        self._min_share = settings.min_share
        self._band = band(settings.range_bps)
        self._lookback_ms = round(settings.lookback_s * 1000)
        self._spacing_ms = max(SAMPLE_MS, self._lookback_ms // MAX_SAMPLES)
        self._times = array("q")
        self._levels = MovingMedian()
        self._shares = MovingMedian()
        self.level: float | None = None
        self.threshold = float("inf")

    def observe(self, side: BookSide, mid_price: float, now_ms: int) -> bool:
        """Sample a side that has levels if a sample is due; return True if the threshold moved."""
        times = self._times
        if times and now_ms - times[-1] < self._spacing_ms:
            if now_ms >= times[-1] - BACK_MS:
                return False
            self._drop(len(times))
        times.append(now_ms)
        self._levels.add(float(median(side.sizes.values())))
        self._shares.add(self._min_share * self._scaled_total(side, mid_price))
        self._drop(bisect_right(times, now_ms - self._lookback_ms))
        before = self.threshold
        self.level = self._levels.value()
        self.threshold = max(self._k * self.level, self._shares.value())
        return self.threshold != before

    def _scaled_total(self, side: BookSide, mid_price: float) -> float:
        """Return the total size within range, as if it were spread over ``SHARE_LEVELS`` levels."""
        lowest, highest = self._band
        if side.name == "bid":
            prices = side.prices[bisect_left(side.prices, mid_price * lowest) :]
        else:
            prices = side.prices[: bisect_right(side.prices, mid_price * highest)]
        total = sum(map(side.sizes.__getitem__, prices))
        return total * sqrt(SHARE_LEVELS / len(prices)) if prices else 0.0

    def _drop(self, count: int) -> None:
        del self._times[:count]
        self._levels.drop(count)
        self._shares.drop(count)
