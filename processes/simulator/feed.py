"""The interface between the server and a source of market data."""

from typing import Literal, NamedTuple, Protocol

from bybit_pipeline.shared.wire.messages import Category

Stream = Literal["trade", "book", "other"]
TopicKey = tuple[Category, str]
"""Category and the exchange's topic text, such as ``("linear", "orderbook.50.BTCUSDT")``."""


class OutgoingMessage(NamedTuple):
    """One data message for all subscribers of its topic."""

    key: TopicKey
    payload: bytes


class ListedInstrument(NamedTuple):
    """An instrument as the exchange's REST API lists it."""

    symbol: str
    base_coin: str
    turnover: float
    """Turnover of 24 hours, in quote currency; in contracts on inverse."""
    price: float
    tick: str
    lot: str


class MarketFeed(Protocol):
    """
    A source of data messages: the synthetic market or a recorded capture.

    A feed has no clock. The server passes the time, in milliseconds since 1970.
    """

    is_elastic: bool
    """True if the feed's time may stop while every receiver lags behind."""

    def listed(self, category: Category) -> list[ListedInstrument]:
        """Return the listed instruments of a category, ordered by symbol."""
        ...

    def serves(self, key: TopicKey) -> bool:
        """Return True if the topic exists."""
        ...

    def join(self, key: TopicKey, now_ms: int) -> list[bytes]:
        """Add a subscriber; return the messages for it alone, such as a snapshot."""
        ...

    def leave(self, key: TopicKey) -> None:
        """Stop a topic that has lost its last subscriber."""
        ...

    def poll(self, now_ms: int) -> list[OutgoingMessage]:
        """Return the messages of subscribed topics that are due by now, in order."""
        ...


def stream_of(topic: str) -> Stream:
    """Return ``book`` for ``orderbook.*``, ``trade`` for ``publicTrade.*``, else ``other``."""
    if topic.startswith("orderbook."):
        return "book"
    return "trade" if topic.startswith("publicTrade.") else "other"
