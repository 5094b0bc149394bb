"""
The books of one worker, by category and symbol, and the getters that users call.

Decides which books a link event concerns, which resyncs are due, and what the getters return. Knows
no sockets and no clock: ``advance`` sets the time, in seconds of the caller's monotonic clock, and
every call until the next ``advance`` happens at that time.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Literal, NamedTuple, cast

from bybit_pipeline.processes.orderbook.counts import Counts
from bybit_pipeline.processes.orderbook.local_book import (
    CONNECTED_DELAY_S,
    RETRY_MAX_S,
    STATES,
    SUBSCRIBED_DELAY_S,
    LocalBook,
)
from bybit_pipeline.processes.orderbook.measures import (
    BPS,
    CumulativeDepth,
    OrderFlow,
    band,
    imbalance,
    mid,
    spread_bps,
)
from bybit_pipeline.processes.orderbook.rounding import BookRounding
from bybit_pipeline.processes.orderbook.walls.tracker import WallTracker
from bybit_pipeline.shared.freshness.link import LinkDoubt
from bybit_pipeline.shared.settings.config import DensityConfig, OrderbookConfig
from bybit_pipeline.shared.wire.gaps import BookGap, BookGapReason, GapLedger
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    Category,
    Level,
    LinkMessage,
    TradesMessage,
)
from bybit_pipeline.shared.wire.orderbook import BookState, SideName, Wall

BookKey = tuple[Category, str]
"""Category and symbol."""


class BookSnapshot(NamedTuple):
    """A book as users read it; unless ``state`` is ``live`` numbers are None and lists empty."""

    state: BookState
    reason: BookGapReason | None
    update_id: int | None
    bids: list[Level]
    asks: list[Level]
    best_bid: float | None
    best_ask: float | None
    mid_price: float | None
    spread_bps: float | None


class ResyncRequest(NamedTuple):
    """A request for a new snapshot: a topic of the market bus, and the reason."""

    topic: str
    reason: BookGapReason


class OrderBookManager:
    """
    Local order books of many symbols: ``apply`` their messages, then call the getters.

    Args:
        settings: Measures to compute; by default those of the default configuration.
        density: Definition of a wall.
        last_gap_id: Number below the ids of the gaps.
    """

    def __init__(
        self,
        settings: OrderbookConfig | None = None,
        density: DensityConfig | None = None,
        *,
        last_gap_id: int = 0,
    ) -> None:
        self.settings = settings or OrderbookConfig()
        self.density = density or DensityConfig()
        self.ledger = GapLedger(BookGap, last_id=last_gap_id)
        self.counts = Counts()
        self.books: dict[BookKey, LocalBook] = {}
        self.now = 0.0
        self._generations = count(1)

    # -- subscriptions ---------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Set the time, in seconds of the monotonic clock."""
        self.now = now

    def subscribe(
        self,
        symbol: str,
        category: Category = "linear",
        *,
        depth: int = 50,
        connector: str = "",
        trades_connector: str | None = "",
        stale_after_s: float = 0.0,
        gap: BookGap | None = None,
    ) -> LocalBook:
        """
        Create a book and return it; repeating it returns the same book.

        Args:
            symbol, category: The market.
            depth: Levels per side of the stream.
            connector: Name of the connector whose link events concern the book.
            trades_connector: Name of the connector whose link events concern the symbol's trades;
                None if the trades are not received, which makes every wall uncertain.
            stale_after_s: Longest plausible silence in seconds; 0 to derive it from the stream.
            gap: An open gap that an earlier process could not close.
        """
        book = self.books.get((category, symbol))
        if book is None:
            book = LocalBook(
                category,
                symbol,
                depth,
                connector,
                ledger=self.ledger,
                counts=self.counts,
                generations=self._generations,
                now=self.now,
                gap=gap,
                flow=OrderFlow() if self.settings.ofi else None,
                trades_connector=trades_connector,
                stale_after_s=stale_after_s,
                walls=WallTracker(self.density, depth, with_trades=trades_connector is not None),
            )
            self.books[category, symbol] = book
        return book

    def unsubscribe(self, symbol: str, category: Category = "linear") -> bool:
        """Forget a book; return True if there was one."""
        book = self.books.pop((category, symbol), None)
        if book is not None:
            book.forget(self.now)
        return book is not None

    # -- messages --------------------------------------------------------------------------------

    def apply(
        self, symbol: str, message: BookMessage, category: Category = "linear", *, lost: int = 0
    ) -> bool:
        """
        Apply a book message; return True if the state of the book or its reason changed.

        Messages of unknown books are ignored. ``lost`` messages are missing before this one.
        """
        book = self.books.get((category, symbol))
        return book is not None and book.apply(message, self.now, lost)

    def apply_trades(
        self, symbol: str, message: TradesMessage, category: Category = "linear", *, lost: int = 0
    ) -> None:
        """Apply trades, which show how walls are eaten; ``lost`` messages are missing before."""
        book = self.books.get((category, symbol))
        if book is not None:
            book.on_trades(message, lost)

    def on_link(self, connector: str, message: LinkMessage) -> list[LocalBook]:
        """Apply a link event of a connector; return the books whose state or reason changed."""
        now, event, received = self.now, message.event, message.recv_ts_ns
        changed = [
            book
            for book in self._of_connector(connector)
            if book.note_source(message.source, now, received)
        ]
        if event == "disconnected":
            return changed + self.on_link_lost(connector, received, "disconnected")
        if event == "connected":
            for book in self._of_connector(connector):
                if not book.is_synced:
                    book.expect_snapshot(now, CONNECTED_DELAY_S)
                elif book.invalidate("disconnected", now, received, retry_in_s=CONNECTED_DELAY_S):
                    changed.append(book)
            self._note_missing_trades(connector)  # until their topics are subscribed
            return changed
        for topic in message.topics:
            changed += self._on_topic_event(topic, message)
        return changed

    def on_link_lost(
        self, connector: str, recv_ts_ns: int, reason: Literal["disconnected", "process_down"]
    ) -> list[LocalBook]:
        """Invalidate the books of a connector whose websocket or process ended; return them."""
        self._note_missing_trades(connector)
        return [
            book
            for book in self._of_connector(connector)
            if book.invalidate(reason, self.now, recv_ts_ns, retry_in_s=RETRY_MAX_S)
        ]

    def doubt_link(self, connector: str, doubt: LinkDoubt | None) -> list[LocalBook]:
        """Set or clear the doubt about a connector; return the books that it changed."""
        books = self._of_connector(connector)
        return [book for book in books if book.doubt_link(doubt, self.now)]

    def _note_missing_trades(self, connector: str) -> None:
        for book in self.books.values():
            if book.trades_connector == connector:
                book.walls.set_has_trades(False)

    def _on_topic_event(self, topic: str, message: LinkMessage) -> Iterator[LocalBook]:
        kind, category, symbol = topic.split(".", 2)
        book = self.books.get((cast(Category, category), symbol))
        if book is None:
            return
        if kind == "trade":
            book.walls.set_has_trades(message.event == "subscribed")
        elif message.event == "subscribed":
            book.expect_snapshot(self.now, SUBSCRIBED_DELAY_S)
        else:
            reason: BookGapReason = "rejected" if message.event == "rejected" else "unsubscribed"
            wait = RETRY_MAX_S if message.event == "rejected" else CONNECTED_DELAY_S
            if book.invalidate(reason, self.now, message.recv_ts_ns, retry_in_s=wait):
                yield book

    def _of_connector(self, connector: str) -> list[LocalBook]:
        return [book for book in self.books.values() if book.connector == connector]

    # -- time ------------------------------------------------------------------------------------

    def due_resyncs(self) -> list[ResyncRequest]:
        """Return the topics to request a snapshot for now; retries back off per topic."""
        now = self.now
        return [
            ResyncRequest(book.topic, book.reason)
            for book in self.books.values()
            if book.is_resync_due(now) and book.reason is not None
        ]

    def check_silence(self) -> list[LocalBook]:
        """Doubt books that are silent for too long and return them; call it often."""
        return [book for book in self.books.values() if book.check_silence(self.now)]

    # -- getters ---------------------------------------------------------------------------------

    def states(self) -> dict[BookState, int]:
        """Return the number of books in each state."""
        states: dict[BookState, int] = dict.fromkeys(STATES, 0)
        for book in list(self.books.values()):  # also called from the exporter's thread
            states[book.state] += 1
        return states

    def get_snapshot(self, symbol: str, category: Category = "linear") -> BookSnapshot | None:
        """Return the book of a symbol; None if it is unknown or has no snapshot yet."""
        local = self.books.get((category, symbol))
        if local is None or local.state == "syncing":
            return None
        if local.state != "live":
            return BookSnapshot(local.state, local.reason, None, [], [], None, None, None, None)
        book = local.book
        bid, ask = book.best_bid, book.best_ask
        prices = (bid[0], ask[0]) if bid and ask else None
        return BookSnapshot(
            state=local.state,
            reason=local.reason,
            update_id=book.update_id,
            bids=book.bids(),
            asks=book.asks(),
            best_bid=bid[0] if bid else None,
            best_ask=ask[0] if ask else None,
            mid_price=BookRounding().spread_and_mid(*prices)[1] if prices else None,
            spread_bps=spread_bps(*prices) if prices else None,
        )

    def get_imbalance(
        self, symbol: str, levels: int = 10, category: Category = "linear"
    ) -> float | None:
        """
        Return the imbalance of the best ``levels`` levels, in [-1, 1].

        None without a live book, or for more levels than the stream has.
        """
        local = self._live(symbol, category)
        if local is None or levels > local.book.depth:
            return None
        bids, asks = local.book.bids(levels), local.book.asks(levels)
        return imbalance(_total(bids), _total(asks))

    def get_aggregated_depth(
        self, symbol: str, side: SideName, range_bps: float = 50, category: Category = "linear"
    ) -> float | None:
        """
        Return the visible size of one side within ``range_bps`` of the mid price.

        None without a live book that has both sides.

        Raises:
            ValueError: ``side`` is neither ``bid`` nor ``ask``.
        """
        _check_side(side)
        local = self._live(symbol, category)
        mid_price = _mid(local)
        if local is None or mid_price is None:
            return None
        book = local.book
        levels = book.bid_side if side == "bid" else book.ask_side
        lowest, highest = band(range_bps)
        visible = CumulativeDepth(
            levels, book.depth, is_inverse=category == "inverse", rounding=BookRounding()
        )
        return visible.within(mid_price * (lowest if side == "bid" else highest))[0]

    def get_densities(self, symbol: str, category: Category = "linear") -> list[Wall] | None:
        """Return the walls of a book, nearest first; None without a live book."""
        local = self._live(symbol, category)
        return None if local is None else local.walls.records(local.book)

    def get_density_at_price(
        self,
        symbol: str,
        price: float,
        side: SideName,
        tolerance_bps: float = 10,
        category: Category = "linear",
    ) -> Wall | None:
        """
        Return the wall of a side nearest to ``price`` within ``tolerance_bps`` of it, or None.

        Raises:
            ValueError: ``side`` is neither ``bid`` nor ``ask``.
        """
        _check_side(side)
        near = [
            wall
            for wall in self.get_densities(symbol, category) or []
            if wall.side == side and abs(wall.price - price) <= price * tolerance_bps / BPS
        ]
        return min(near, key=lambda wall: (abs(wall.price - price), wall.price), default=None)

    def _live(self, symbol: str, category: Category) -> LocalBook | None:
        local = self.books.get((category, symbol))
        return local if local is not None and local.state == "live" else None


def _check_side(side: str) -> None:
    if side not in ("bid", "ask"):
        raise ValueError(f"side: {side!r} is unknown; use bid or ask")


def _mid(local: LocalBook | None) -> float | None:
    if local is None:
        return None
    bid, ask = local.book.best_bid, local.book.best_ask
    return None if bid is None or ask is None else mid(bid[0], ask[0])


def _total(levels: Iterable[Level]) -> float:
    return sum(size for _, size in levels)
