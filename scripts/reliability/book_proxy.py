"""
A websocket proxy between a connector and an exchange that spoils order book messages on order.

It knows the truth: every message that the exchange sent is applied to a slow model, and a digest
of the book at every update id is kept, so that whatever the pipeline publishes can be checked.
"""

import asyncio
import json
import random
import threading
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.naive import NaiveBook

Frame = dict[str, Any]

FAULTS = (
    "drop",
    "duplicate",
    "reorder",
    "price_text",
    "size_negative",
    "size_text",
    "crossed",
    "truncated",
    "update_id_reset",
    "update_id_old",
    "too_deep",
)


def digest(bids: Any, asks: Any) -> int:
    """A number that tells two books apart; both sides as ``[price, size]`` pairs, best first."""
    return hash((tuple(map(tuple, bids)), tuple(map(tuple, asks))))


class FaultyProxy:
    """
    Listens on ``url`` and passes everything on, except where a fault was armed.

    ``arm(symbol, fault)`` spoils the next delta of that symbol; ``on_injected(symbol, fault)`` is
    called when it happened. ``late_snapshot_share`` of the snapshots arrive after three later
    deltas. ``truth[symbol][update_id]`` is the digest of the right book.
    """

    def __init__(
        self,
        upstream: str,
        *,
        levels: int,
        on_injected: Callable[[str, str], None],
        seed: int = 1,
        late_snapshot_share: float = 0.0,
    ) -> None:
        self.truth: dict[str, dict[int, int]] = {}
        self.late_snapshots = 0
        self.url = ""
        self._upstream = upstream
        self._levels = levels
        self._on_injected = on_injected
        self._random = random.Random(seed)
        self._late_share = late_snapshot_share
        self._books: dict[str, NaiveBook] = {}
        self._armed: dict[str, str] = {}
        self._held: dict[str, list[str]] = {}
        self._late: dict[str, tuple[str, int]] = {}
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Listen; ``url`` is set when this returns."""
        self._thread.start()
        assert self._started.wait(10), "the proxy did not start"

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def arm(self, symbol: str, fault: str) -> None:
        """Spoil the next delta of ``symbol``."""
        self._armed[symbol] = fault

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._listen())
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", 0, compression=None, max_size=None)
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/v5/public/linear"
        self._started.set()

    async def _serve(self, client: ServerConnection) -> None:
        self._held.clear()
        self._late.clear()
        async with connect(self._upstream, compression=None, max_size=None) as exchange:
            up = asyncio.create_task(self._pass_up(client, exchange))
            try:
                async for text in exchange:
                    assert isinstance(text, str)
                    for passed in self._down(text):
                        await client.send(passed)
            except ConnectionClosed:
                pass
            finally:
                up.cancel()

    async def _pass_up(self, client: ServerConnection, exchange: ClientConnection) -> None:
        try:
            async for text in client:
                await exchange.send(text)
        except ConnectionClosed:
            pass
        await exchange.close()

    # -- what happens to a frame -----------------------------------------------------------------

    def _down(self, text: str) -> list[str]:
        frame = json.loads(text)
        if not str(frame.get("topic", "")).startswith("orderbook."):
            return [text]
        symbol = frame["data"]["s"]
        book = self._books.setdefault(symbol, NaiveBook())
        book.apply(frame)
        truth = self.truth.setdefault(symbol, {})
        truth[book.update_id] = digest(*book.best(self._levels))
        if frame["type"] == "snapshot":
            return self._snapshot(symbol, text)
        if symbol in self._late:
            return self._after_late_snapshot(symbol, text)
        held = self._held.pop(symbol, [])
        fault = self._armed.pop(symbol, None)
        if fault is None:
            return [text, *held]
        spoiled = self._spoil(symbol, fault, text, frame, book)
        self._on_injected(symbol, fault)
        return [*held, *spoiled]

    def _snapshot(self, symbol: str, text: str) -> list[str]:
        self._held.pop(symbol, None)
        if self._random.random() < self._late_share:
            self._late[symbol] = (text, 3)
            self.late_snapshots += 1
            return []
        return [text]

    def _after_late_snapshot(self, symbol: str, text: str) -> list[str]:
        snapshot, left = self._late[symbol]
        if left > 1:
            self._late[symbol] = (snapshot, left - 1)
            return [text]
        del self._late[symbol]
        return [text, snapshot]

    def _spoil(
        self, symbol: str, fault: str, text: str, frame: Frame, book: NaiveBook
    ) -> list[str]:
        data = frame["data"]
        best_bid, best_ask = max(book.bids), min(book.asks)
        match fault:
            case "drop":
                return []
            case "duplicate":
                return [text, text]
            case "reorder":
                self._held[symbol] = [text]
                return []
            case "price_text":
                data["b"] = [["12x.5", "1"], *data["b"]]
            case "size_text":
                data["a"] = [[repr(best_ask), ""], *data["a"]]
            case "size_negative":
                data["b"] = [[repr(best_bid), "-1"], *data["b"]]
            case "crossed":
                data["b"] = [[repr(best_ask * 1.01), "1"], *data["b"]]
            case "truncated":
                return [text[: len(text) // 2]]
            case "update_id_reset":
                data["u"] = 1
            case "update_id_old":
                data["u"] -= 5
            case "too_deep":
                extra = [[repr(best_bid * (1 - 0.01 * n)), "1"] for n in range(1, 60)]
                data["b"] = [*data["b"], *extra]
            case _:
                raise ValueError(fault)
        return [json.dumps(frame)]
