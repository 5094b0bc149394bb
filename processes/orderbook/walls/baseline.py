"""The usual level size of one side of a book, against which walls are measured."""

from array import array
from bisect import bisect_left, bisect_right, insort
from statistics import median

from bybit_pipeline.processes.orderbook.book import BookSide

SAMPLE_MS = 1_000
MAX_SAMPLES = 300
BACK_MS = 60_000
"""A step back in exchange time that is larger than this starts over; a smaller one is ignored."""


class Baseline:
    """
    Median of the median level sizes over a look-back, sampled at most once a second.

    A long look-back is sampled more slowly, so that there are up to ``MAX_SAMPLES`` samples. They
    are kept in arrays, which use a fifth of the memory of lists and are cheap to insert into at
    this length.

    Attributes:
        value: The baseline, a size; None before the first sample.
    """

    __slots__ = ("_lookback_ms", "_samples", "_sorted", "_spacing_ms", "_times", "value")

    def __init__(self, lookback_s: float) -> None:
        self._lookback_ms = round(lookback_s * 1000)
        self._spacing_ms = max(SAMPLE_MS, self._lookback_ms // MAX_SAMPLES)
        self._times = array("q")
        self._samples = array("d")
        self._sorted = array("d")
        self.value: float | None = None

    def observe(self, side: BookSide, now_ms: int) -> bool:
        """Sample the sizes of a side if a sample is due; return True if ``value`` changed."""
        times, samples, ordered = self._times, self._samples, self._sorted
        if times and now_ms - times[-1] < self._spacing_ms:
            if now_ms >= times[-1] - BACK_MS:
                return False
            del times[:], samples[:], ordered[:]
        if side.sizes:
            sample = float(median(side.sizes.values()))
            times.append(now_ms)
            samples.append(sample)
            insort(ordered, sample)
        expired = bisect_right(times, now_ms - self._lookback_ms)
        for sample in samples[:expired]:
            del ordered[bisect_left(ordered, sample)]
        del times[:expired], samples[:expired]
        before = self.value
        if ordered:
            count = len(ordered)
            self.value = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        return self.value != before
