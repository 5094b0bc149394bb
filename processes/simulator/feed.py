"""What the server asks of a source of market data: the synthetic market or a recorded capture."""

from typing import Literal, NamedTuple, Protocol

from bybit_pipeline.shared.wire.messages import Category

Stream = Literal["trade", "book", "other"]
TopicKey = tuple[Category, str]
"""Category and the exchange's topic text, such as ``("linear", "orderbook.50.BTCUSDT")``."""


class Outgoing(NamedTuple):
    """One data message for everybody who subscribes its topic."""

    key: TopicKey
    payload: bytes


class Listed(NamedTuple):
    """An instrument as the exchange's REST lists it."""

    symbol: str
    base_coin: str
    turnover: float
    """Of 24 hours, in quote currency."""
    price: float
    tick: str
    lot: str


class Feed(Protocol):
    """A source of data messages; pure, time comes in as milliseconds since 1970."""

    is_elastic: bool
    """Whether its time may stand still while all receivers are behind."""

    def listed(self, category: Category) -> list[Listed]:
        """What is listed in a category, by symbol."""
        ...

    def serves(self, key: TopicKey) -> bool:
        """Whether there is such a topic."""
        ...

    def join(self, key: TopicKey, now_ms: int) -> list[bytes]:
        """Somebody subscribed; what only the newcomer gets, such as a snapshot."""
        ...

    def leave(self, key: TopicKey) -> None:
        """The last subscriber of a topic went."""
        ...

    def poll(self, now_ms: int) -> list[Outgoing]:
        """What is due up to now, in order; only for topics that somebody subscribes."""
        ...


def stream_of(topic: str) -> Stream:
    """The kind of a topic: ``book`` for ``orderbook.*``, ``trade`` for ``publicTrade.*``."""
    if topic.startswith("orderbook."):
        return "book"
    return "trade" if topic.startswith("publicTrade.") else "other"
