"""One market as the trades worker publishes it: topics, sequence numbers, times of publication."""

from bybit_pipeline.processes.trades.tape import TradeTape
from bybit_pipeline.shared.wire.messages import Category
from bybit_pipeline.shared.wire.topics import metric_topic

RESYNC_INITIAL_S = 0.5
"""Delay of the first request for a market about which nothing is known."""


class TradesMarket:
    """
    State of one symbol besides its tape: topics, sequence numbers, times of publication.

    Attributes:
        connector: Name of the connector of its trades.
        tape: The tape of the present epoch; the aggregator may have replaced it already.
        has_traded: True if the market traded since it was published.
        published_at: Time of the last publication, by the monotonic clock.
        published_state: State at the last publication.
        resync_due, resync_wait_s: Time of the next request, and the delay after it.
    """

    __slots__ = (
        "category",
        "connector",
        "epoch",
        "gap_sequence",
        "gap_topic",
        "has_traded",
        "published_at",
        "published_state",
        "resync_due",
        "resync_wait_s",
        "sequence",
        "symbol",
        "tape",
        "topic",
    )

    def __init__(self, tape: TradeTape, connector: str, epoch: str) -> None:
        category, symbol = tape.category, tape.symbol
        self.connector = connector
        self.category: Category = category
        self.symbol = symbol
        self.tape = tape
        self.topic = metric_topic("trades", category, symbol)
        self.gap_topic = metric_topic("gap", category, symbol)
        self.published_at = float("-inf")
        self.published_state: tuple[str, str | None] | None = None
        self.has_traded = False
        self.resync_wait_s = RESYNC_INITIAL_S
        self.resync_due: float | None = None
        self.start_epoch(epoch)

    def start_epoch(self, epoch: str) -> None:
        """Start an epoch: both topics number their messages from 1 again."""
        self.epoch = epoch
        self.sequence = 0
        self.gap_sequence = 0
