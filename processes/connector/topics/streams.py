"""
The streams that callers want, and the topics of the exchange that carry them. Pure.

A caller subscribes the trades or the book of a symbol; Bybit serves topics. One topic usually
carries one symbol, but the trades of all options on a base coin come on one topic. Decides which
topics are needed for which symbols, and what to announce about a stream. ``subscriptions`` decides
how a topic gets subscribed.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bybit_pipeline.processes.connector.topics.subscriptions import Subscriptions
from bybit_pipeline.shared.bybit import (
    DEPTH_MAX,
    StreamKind,
    book_topic,
    parse_exchange_topic,
    trades_topic,
)
from bybit_pipeline.shared.wire.messages import Category, LinkEvent

StreamKey = tuple[StreamKind, str]
"""``("trade", "BTCUSDT")`` or ``("book", "BTCUSDT")``."""


class LinkNotice(NamedTuple):
    """An event of some streams that is still to be announced."""

    event: LinkEvent
    reason: str
    streams: list[StreamKey]


class Streams:
    """
    The wanted streams of one connector, over all its connections.

    Args:
        category: The category of all symbols.
        subscriptions: Where topics are subscribed and unsubscribed.
    """

    def __init__(self, category: Category, subscriptions: Subscriptions) -> None:
        self.symbols: dict[str, dict[str, None]] = {}
        """The wanted symbols of each topic."""
        self.notices: deque[LinkNotice] = deque()
        """Events to announce, in this order and before any data that follows them."""
        self._category = category
        self._subscriptions = subscriptions

    # -- commands --------------------------------------------------------------------------------

    def subscribe_trades(self, symbols: Iterable[str], now: float) -> None:
        """Want the trades of these symbols."""
        self._add([(trades_topic(self._category, symbol), symbol) for symbol in symbols], now)

    def subscribe_books(self, books: Sequence[tuple[str, int]], now: float) -> None:
        """
        Want these books, each a symbol and a depth.

        Raises:
            ValueError: If a symbol is subscribed at another depth, or a depth is out of range.
                Nothing is subscribed then.
        """
        depths = self._book_depths()
        for symbol, depth in books:
            if not 1 <= depth <= DEPTH_MAX:
                raise ValueError(f"depth {depth} of {symbol}: use 1 to {DEPTH_MAX}")
            if depths.setdefault(symbol, depth) != depth:
                raise ValueError(f"{symbol} is already subscribed at depth {depths[symbol]}")
        self._add([(book_topic(symbol, depth), symbol) for symbol, depth in books], now)

    def unsubscribe_trades(self, symbols: Iterable[str], now: float) -> None:
        """Stop wanting the trades of these symbols."""
        self._remove([(trades_topic(self._category, symbol), symbol) for symbol in symbols], now)

    def unsubscribe_books(self, symbols: Iterable[str], now: float) -> None:
        """Stop wanting the books of these symbols."""
        depths = self._book_depths()
        wanted = [symbol for symbol in symbols if symbol in depths]
        self._remove([(book_topic(symbol, depths[symbol]), symbol) for symbol in wanted], now)

    def resync_book(self, symbol: str, now: float) -> bool:
        """Request a new snapshot of a book; False if it is not subscribed."""
        depth = self._book_depths().get(symbol)
        return depth is not None and self._subscriptions.resync(book_topic(symbol, depth), now)

    def announce_trades(self, symbol: str) -> bool:
        """Announce once more that the trades of a symbol flow; False if they do not."""
        stream: StreamKey = ("trade", symbol)
        if stream not in self.served_trades([trades_topic(self._category, symbol)]):
            return False
        self.announce("subscribed", "", [stream])
        return True

    # -- announcements ---------------------------------------------------------------------------

    def announce(self, event: LinkEvent, reason: str, streams: list[StreamKey]) -> None:
        """Queue an event."""
        self.notices.append(LinkNotice(event, reason, streams))

    # -- questions -------------------------------------------------------------------------------

    def of(self, topics: Iterable[str]) -> list[StreamKey]:
        """The streams that these topics carry."""
        return [
            (parse_exchange_topic(topic).kind, symbol)
            for topic in topics
            for symbol in self.symbols.get(topic, {})
        ]

    def trade_topics(self) -> list[str]:
        """The wanted topics of trades."""
        return [topic for topic in self.symbols if parse_exchange_topic(topic).kind == "trade"]

    def served_trades(self, topics: Iterable[str]) -> list[StreamKey]:
        """The streams of those of these topics that carry trades and that Bybit has confirmed."""
        states = self._subscriptions.states()
        served = [t for t in topics if states.get(t) in ("confirmed", "delivering")]
        return [stream for stream in self.of(served) if stream[0] == "trade"]

    def _book_depths(self) -> dict[str, int]:
        parsed = map(parse_exchange_topic, self.symbols)
        return {symbol: depth for kind, depth, symbol in parsed if kind == "book"}

    # -- steps -----------------------------------------------------------------------------------

    def _add(self, wanted: Sequence[tuple[str, str]], now: float) -> None:
        states = self._subscriptions.states()
        for topic, symbol in wanted:
            symbols = self.symbols.setdefault(topic, {})
            if symbol not in symbols and states.get(topic) in ("confirmed", "delivering"):
                # One more option on a base coin whose trades flow already.
                self.announce("subscribed", "", [("trade", symbol)])
            symbols[symbol] = None
        self._subscriptions.subscribe(dict.fromkeys(topic for topic, _ in wanted), now)

    def _remove(self, unwanted: Sequence[tuple[str, str]], now: float) -> None:
        topics = []
        for topic, symbol in unwanted:
            symbols = self.symbols.get(topic, {})
            if symbol in symbols:
                del symbols[symbol]
                kind = parse_exchange_topic(topic).kind
                self.announce("unsubscribed", "asked", [(kind, symbol)])
                if not symbols:
                    del self.symbols[topic]
                    topics.append(topic)
        self._subscriptions.unsubscribe(topics, now)
