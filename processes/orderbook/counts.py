"""Counts over all books of a worker."""

from dataclasses import dataclass, field
from typing import get_args

from bybit_pipeline.shared.wire.gaps import BookGapReason


@dataclass
class Counts:
    """Counts over all books of a worker, since its start."""

    messages: int = 0
    """Book messages, applied or not; incremented by the caller."""
    ignored: int = 0
    """Deltas that arrived without a snapshot to apply them to."""
    requested: int = 0
    """Resyncs: books for which a snapshot was requested, once per outage however often."""
    recovered: int = 0
    """Those of them that are live again, or for the first time."""
    invalidated: dict[BookGapReason, int] = field(
        default_factory=lambda: {
            reason: 0 for reason in get_args(BookGapReason) if reason != "starting"
        }
    )
    """Times that a live book was invalidated, by the first reason."""
