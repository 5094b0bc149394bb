"""The common part of both clients: arguments, subscriptions and getters."""

import os
from pathlib import Path
from typing import Any

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from bybit_pipeline.shared.client.endpoint import find_endpoint
from bybit_pipeline.shared.client.state import MARKET_KINDS, ClientState, SubscriptionChange
from bybit_pipeline.shared.client.values import (
    BookSide,
    Snapshot,
    Wall,
    snapshot_of,
    walls_of,
)
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.shared.wire.topics import metric_topic

BPS = 10_000


class BaseClient:
    """
    The getters of both clients. They read the last message of a topic, and never wait.

    Numbers of a book are None unless the book is live. Numbers of trades cover what was observed:
    ``get_coverage_s`` says how many seconds of a window that is. It is less than the whole window
    in the first minute of a 60-second window and after a gap.

    The pipeline publishes every market at least once per second. A topic without a message for 2 s
    is stale, whatever its last message says: its numbers are None. This shows a hung pipeline
    within 2 s, and a program that was itself stopped for that long. A child process that was forked
    after the client was opened receives nothing: open the client again there.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        run_dir: str | Path | None = None,
        keys: str | Path | None = None,
    ) -> None:
        """
        Make a client; it connects when it is opened.

        Args:
            endpoint: The metrics socket; by default the one named in the run directory.
            run_dir: Run directory of the pipeline; by default the usual one.
            keys: Directory with ``client.key`` and ``server.pub``, for a metrics socket with CURVE;
                by default the one named in the run directory, or none if an endpoint is given.
        """
        self._endpoint = endpoint
        self._run_dir = run_dir
        self._keys = keys
        self._state = ClientState()

    def _leave_parent(self) -> None:
        """
        Start from scratch in a forked child.

        The sockets, threads and locks belong to the parent. They are left as they are: closing
        them here could wait without end for a thread that does not exist in this process.
        """
        if self._state.is_foreign:
            self._state = self._state.fork()
            self._forget_reader()

    def _forget_reader(self) -> None:
        """Leave the parent's reader alone."""
        raise NotImplementedError

    def _connect(self) -> MetricSubscriber:
        """Make the socket, with the subscriptions that are wanted."""
        endpoint, keys = self._endpoint, self._keys
        if endpoint is None:
            endpoint, found_keys = find_endpoint(self._run_dir)
            keys = keys or found_keys
        if keys and not hasattr(os, "geteuid"):
            raise ConfigError("keys", "this operating system has no file permissions to check")
        subscriber = MetricSubscriber(endpoint, keys=keys, counts=self._state.counts)
        self._state.subscribe_wanted(subscriber)
        return subscriber

    def _apply(self, change: SubscriptionChange) -> None:
        """Make a change at the socket, if there is one; the state's lock is held."""
        raise NotImplementedError

    # -- subscriptions and status ----------------------------------------------------------------

    def subscribe(self, symbol: str, category: Category = "linear") -> None:
        """Receive the topics of a symbol; the first call ends receiving everything."""
        self._leave_parent()
        with self._state.lock:
            self._apply(self._state.subscribe(_topics(symbol, category)))

    def unsubscribe(self, symbol: str, category: Category = "linear") -> None:
        """
        Stop receiving the topics of a symbol and forget their last messages.

        Has no effect before the first ``subscribe``, while everything is received.
        """
        self._leave_parent()
        with self._state.lock:
            self._apply(self._state.unsubscribe(_topics(symbol, category)))

    @property
    def connected(self) -> bool:
        """True while the metrics socket is connected and messages arrive, at least every 2 s."""
        return self._state.is_connected

    @property
    def source(self) -> Source | None:
        """
        Source of the last message about a market: ``live``, ``sim`` or ``replay``.

        None before the first one, and while no messages arrive.
        """
        return self._state.source

    @property
    def lost(self) -> int:
        """
        Messages missed: the jumps in ``seq``, per topic and epoch.

        Messages before the first one received here of a topic or of an epoch are not counted.
        """
        return self._state.counts.missed

    @property
    def dropped(self) -> int:
        """Messages that an iteration was too slow for; the getters still saw them."""
        return self._state.dropped

    @property
    def invalid(self) -> int:
        """Messages that could not be decoded."""
        return self._state.counts.invalid

    @property
    def refused(self) -> int:
        """Connections that the pipeline refused because it does not know our key."""
        return self._state.counts.refused

    # -- messages --------------------------------------------------------------------------------

    def topics(self, prefix: str = "") -> list[str]:
        """The topics that start with ``prefix`` and have a last message."""
        self._leave_parent()
        return [topic for topic in self._state.topics if topic.startswith(prefix)]

    def get_message(self, topic: str) -> dict[str, Any] | None:
        """
        The last message of a topic such as ``trades.linear.BTCUSDT`` or ``process.forwarder``.

        The documentation of the wire format describes its fields. Treat it as read-only: it is
        shared with other callers. After 2 s without a message, one about a market has the state
        ``stale``, the reason ``no_messages`` and no numbers, and there is none about a process.
        """
        return self._state.get(topic)

    # -- trades ----------------------------------------------------------------------------------

    def get_tpm(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Trades per minute over a window; too low while the window is not fully covered."""
        return self._window(symbol, window, category, "tpm")

    def get_coverage_s(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Seconds of a window that were observed; its full length if nothing is missing."""
        return self._window(symbol, window, category, "coverage_s")

    def get_tps(self, symbol: str, category: Category = "linear") -> float | None:
        """Trades per second over 10 seconds."""
        trades = self._last("trades", symbol, category)
        return None if trades is None else trades.get("tps")

    def get_vol_delta(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Bought minus sold size over a window."""
        return self._window(symbol, window, category, "vol_delta")

    def get_buy_sell_ratio(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Bought size over sold size of a window; None without sells."""
        return self._window(symbol, window, category, "buy_sell_ratio")

    # -- books -----------------------------------------------------------------------------------

    def get_snapshot(self, symbol: str, category: Category = "linear") -> Snapshot | None:
        """The book as last published, in any state."""
        book = self._last("orderbook", symbol, category)
        return None if book is None else snapshot_of(book, symbol, category)

    def get_imbalance(
        self, symbol: str, levels: int = 10, category: Category = "linear"
    ) -> float | None:
        """
        Imbalance of the best ``levels`` levels, in [-1, 1].

        None unless the pipeline publishes it for this number of levels (``imbalance_levels``).
        """
        value: float | None = self._numbered("imbalance", symbol, levels, category)
        return value

    def get_aggregated_depth(
        self,
        symbol: str,
        side: BookSide,
        range_bps: float = 50,
        category: Category = "linear",
    ) -> float | None:
        """
        Size on one side within ``range_bps`` of the mid.

        None unless the pipeline publishes it for this range (``depth_bps``). A lower bound if the
        range extends beyond the visible book: see ``bid_complete`` and ``ask_complete`` in the
        message.

        Raises:
            ValueError: If ``side`` is neither ``bid`` nor ``ask``.
        """
        _check_side(side)
        depth = self._numbered("depth", symbol, range_bps, category)
        return None if depth is None else depth.get(side)

    def get_densities(self, symbol: str, category: Category = "linear") -> list[Wall] | None:
        """The tracked walls, nearest to the mid price first; None without a live book."""
        book = self._last("orderbook", symbol, category)
        return None if book is None or book["state"] != "live" else walls_of(book)

    def get_density_at_price(
        self,
        symbol: str,
        price: float,
        side: BookSide,
        tolerance_bps: float = 10,
        category: Category = "linear",
    ) -> Wall | None:
        """
        The wall of one side that is nearest to ``price``, within ``tolerance_bps`` of it.

        Raises:
            ValueError: If ``side`` is neither ``bid`` nor ``ask``.
        """
        _check_side(side)
        near = [
            wall
            for wall in self.get_densities(symbol, category) or ()
            if wall.side == side and abs(wall.price - price) <= price * tolerance_bps / BPS
        ]
        return min(near, key=lambda wall: abs(wall.price - price), default=None)

    # -- helpers ---------------------------------------------------------------------------------

    def _last(self, kind: str, symbol: str, category: str) -> dict[str, Any] | None:
        return self._state.get(f"{kind}.{category}.{symbol}")

    def _window(self, symbol: str, window: str, category: str, name: str) -> float | None:
        trades = self._last("trades", symbol, category) or {}
        measures = (trades.get("windows") or {}).get(window) or {}
        value: float | None = measures.get(name)
        return value

    def _numbered(self, name: str, symbol: str, number: float, category: str) -> Any:
        """An entry of a map whose keys are numbers as text, such as ``"2.5"``."""
        book = self._last("orderbook", symbol, category) or {}
        for key, value in (book.get(name) or {}).items():
            if float(key) == number:
                return value
        return None


def _topics(symbol: str, category: Category) -> set[str]:
    return {metric_topic(kind, category, symbol).decode() for kind in MARKET_KINDS}


def _check_side(side: str) -> None:
    if side not in ("bid", "ask"):
        raise ValueError(f"side: {side!r}; allowed: bid, ask")
