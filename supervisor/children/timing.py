"""Time limits of supervision in one record, so that tests can shorten them."""

from dataclasses import dataclass, field

from bybit_pipeline.supervisor.children.restart import RestartPolicy


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time limits of one supervisor, in seconds."""

    ready_s: float = 20.0
    """Longest time from the start of a child to its ``ready``."""
    silent_s: float = 1.2
    """
    Time without a heartbeat, in seconds, after which a child counts as silent.

    A child sends four heartbeats per second. The limit leaves room for a busy machine.
    """
    hung_s: float = 5.0
    """Longest time without a heartbeat; a child that is silent for longer hangs."""
    starved_ratio: float = 6.0
    """
    Factor on both limits for a child that is runnable but gets less than half of a CPU.

    It is starved, not hung, and a restart would only add load.
    """
    leave_s: float = 2.0
    """Time for a child that is no longer needed to stop before it is killed."""
    stop_s: float = 4.5
    """Time for all children to stop at the end of the pipeline before they are killed."""
    refresh_s: float = 0.25
    """
    Shortest time between two snapshots of a pipeline that is not ready.

    A snapshot takes milliseconds with 1,000 symbols, and one rejected topic may keep a pipeline
    from being ready for good.
    """
    restart: RestartPolicy = field(default_factory=RestartPolicy)
