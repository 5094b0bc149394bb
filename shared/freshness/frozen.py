"""The histogram ``frozen_seconds``, which workers and the forwarder observe alike."""

from bybit_pipeline.shared.runtime.telemetry import Histogram, Telemetry


def frozen_histogram(telemetry: Telemetry, process: str) -> Histogram:
    """Return the histogram of a process; observe each outage once, when it is noticed."""
    return telemetry.histogram(
        "frozen_seconds",
        "Time for which numbers that no longer followed the exchange were said to be live.",
        process=process,
    )
