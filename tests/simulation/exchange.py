"""
A faithful exchange in memory: books and trades with their truth, subscriptions, acks and pongs.

``Exchange`` never errs. Faults are what a ``Wire`` does to frames and requests on their way, and
what ``refuses`` does to attempts to connect.
"""

import json
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.simulation.world import World

DEPTH = 50
LEVELS = 14
TICK = 10
"""Ticks per unit of price."""
SIZE_UNIT = 1000
"""Smallest sizes per unit of size."""

Levels = list[list[float]]
Frame = dict[str, Any]
LATENCY_S = (0.002, 0.02)


class Market:
    """
    The book and the trades of one symbol: the truth.

    Attributes:
        versions: Books by update id: time, bids and asks, best first. An id may occur twice, as the
            exchange restarts its numbers.
        changed: Times of the changes of the book, in order.
        trades: All trades as they are sent, in order; every one has a match time of its own.
    """

    def __init__(self, world: World, symbol: str, rate: float) -> None:
        self.world, self.symbol, self.rate = world, symbol, rate
        self.update_id = world.random.randrange(2, 10**6)
        self.sequence = world.random.randrange(10**6, 10**8)
        self.mid = world.random.randrange(2_000, 90_000)
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.versions: dict[int, list[tuple[float, Levels, Levels]]] = defaultdict(list)
        self.changed: list[float] = []
        self.trades: list[Frame] = []
        self.trade_times: list[int] = []
        self.traded: list[float] = []
        self.place: dict[str, int] = {}
        self.sent_ms: set[int] = set()
        self.is_silent = False
        for step in range(LEVELS):
            self.bids[self.mid - 1 - step] = self._size()
            self.asks[self.mid + 1 + step] = self._size()
        self._remember()

    def _size(self) -> int:
        return self.world.random.randrange(1, 50_000)

    def change(self) -> Frame:
        """Change the book; return the delta."""
        random = self.world.random
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        if random.random() < 0.3:
            step = random.choice((-1, 1))
            self.mid += step
            gaining, losing = (self.bids, self.asks) if step > 0 else (self.asks, self.bids)
            gained, lost = (bids, asks) if step > 0 else (asks, bids)
            gaining[self.mid - step] = gained[self.mid - step] = self._size()
            for price in [p for p in losing if (p - self.mid) * step <= 0]:
                del losing[price]
                lost[price] = 0
        for side, changes, sign in ((self.bids, bids, -1), (self.asks, asks, 1)):
            if random.random() < 0.7:
                price = self.mid + sign * random.randint(1, LEVELS)
                size = 0 if random.random() < 0.2 and len(side) > 3 else self._size()
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
                changes[price] = size
            for price in sorted(side, key=lambda p: -abs(p - self.mid))[: max(0, len(side) - 20)]:
                del side[price]
                changes[price] = 0
        self.update_id += 1
        self._remember()
        return self._frame("delta", bids, asks)

    def restart_numbers(self) -> Frame:
        """Bybit's service restart: a snapshot with update 1."""
        self.update_id = 1
        self._remember()
        return self.snapshot()

    def snapshot(self) -> Frame:
        return self._frame("snapshot", self.bids, self.asks)

    def trade(self) -> Frame:
        """One to three trades in one message."""
        random, now_ms = self.world.random, self.world.exchange_ms()
        rows: list[Frame] = []
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            size, price = self._size(), self.mid + random.choice((-1, 1))
            last = self.trade_times[-1] if self.trade_times else 0
            self.sequence += 1
            rows.append(
                {
                    "T": max(now_ms - random.randrange(3), last + 1),
                    "s": self.symbol,
                    "S": random.choice(("Buy", "Sell")),
                    "v": _text(size, SIZE_UNIT),
                    "p": _text(price, TICK),
                    "i": f"{self.symbol}-{len(self.trades)}",
                    "BT": False,
                    "seq": self.sequence,
                }
            )
            self.place[rows[-1]["i"]] = len(self.trades)
            self.trades.append({**rows[-1], "units": (size, price)})
            self.traded.append(self.world.now)
            self.trade_times.append(rows[-1]["T"])
        topic = f"publicTrade.{self.symbol}"
        ts = max(now_ms, rows[-1]["T"])
        return {"topic": topic, "type": "snapshot", "ts": ts, "data": rows}

    def trades_between(self, after_ms: int, until_ms: int, last_id: str) -> list[Frame]:
        """The trades of ``(after, until]`` up to the one with this id."""
        end = min(bisect_right(self.trade_times, until_ms), self.place[last_id] + 1)
        return self.trades[bisect_right(self.trade_times, after_ms) : end]

    def changed_after(self, when: float) -> float | None:
        """When the book changed next after a time."""
        place = bisect_right(self.changed, when)
        return self.changed[place] if place < len(self.changed) else None

    def _remember(self) -> None:
        bids, asks = (
            [[price / TICK, side[price] / SIZE_UNIT] for price in sorted(side, reverse=is_bid)]
            for side, is_bid in ((self.bids, True), (self.asks, False))
        )
        self.versions[self.update_id].append((self.world.now, bids, asks))
        self.changed.append(self.world.now)

    def _frame(self, kind: str, bids: dict[int, int], asks: dict[int, int]) -> Frame:
        self.sequence += 1
        now_ms = self.world.exchange_ms()
        self.sent_ms.add(now_ms)
        return {
            "topic": f"orderbook.{DEPTH}.{self.symbol}",
            "type": kind,
            "ts": now_ms,
            "data": {
                "s": self.symbol,
                "b": [[_text(p, TICK), _text(v, SIZE_UNIT)] for p, v in sorted(bids.items())[::-1]],
                "a": [[_text(p, TICK), _text(v, SIZE_UNIT)] for p, v in sorted(asks.items())],
                "u": self.update_id,
                "seq": self.sequence,
            },
            "cts": now_ms,
        }


def _text(number: int, unit: int) -> str:
    return f"{number / unit:.{len(str(unit)) - 1}f}".rstrip("0").rstrip(".") if number else "0"


class Wire:
    """
    One websocket connection, seen from both ends.

    Attributes:
        topics: The subscribed topics.
        inbox: Arrived or arriving frames for our end, each with its time.
        error: Why the connection ended, once our end can know it.
        is_half_open: Nothing passes any more, and nobody is told.
    """

    def __init__(self, exchange: "Exchange", on_arrival: Callable[[float], None]) -> None:
        self.exchange, self.world = exchange, exchange.world
        self.topics: set[str] = set()
        self.inbox: deque[tuple[float, bytes]] = deque()
        self.error: tuple[float, Exception] | None = None
        self.is_half_open = False
        self._on_arrival = on_arrival
        self._last = 0.0

    def request(self, text: str) -> None:
        """Our end sends a request."""
        if not self.is_half_open and self.error is None:
            self.world.after(self.world.random.uniform(*LATENCY_S), partial(self._handle, text))

    def stall(self, until: float) -> None:
        """Nothing arrives before a time; then everything does."""
        self._last = max(self._last, until)

    def end(self, error: Exception) -> None:
        """End the connection."""
        if self.error is None:
            self.error = (max(self.world.now, self._last), error)
            self.exchange.wires.pop(self, None)
            self._on_arrival(self.error[0])

    def put(self, raw: bytes) -> None:
        """Send raw bytes to our end, in order."""
        if self.is_half_open or self.error is not None:
            return
        self._last = max(self._last, self.world.now + self.world.random.uniform(*LATENCY_S))
        self.inbox.append((self._last, raw))
        self._on_arrival(self._last)

    def put_late(self, raw: bytes, delay_s: float) -> None:
        """Send raw bytes later; what is sent in the meantime does not wait for them."""
        if delay_s:
            self.world.after(delay_s, partial(self.put, raw))
        else:
            self.put(raw)

    def push(self, frame: Frame) -> None:
        """Send a frame, through the faults."""
        raw = json.dumps(frame, separators=(",", ":")).encode()
        for part, delay_s in self.exchange.distort(self, frame, raw):
            self.put_late(part, delay_s)

    def _handle(self, text: str) -> None:
        if not self.is_half_open and self.error is None:
            self.exchange.handle(self, json.loads(text))


class Exchange:
    """
    The exchange.

    Attributes:
        refuses: Returns the error of an attempt to connect, and its delay; None to accept it.
        distort: Turns a frame into what really arrives: bytes with delays.
        answer: Returns False to keep an ack or a pong back, or a number of seconds to delay it.
        delisted: Symbols that are refused.
    """

    def __init__(self, world: World, rates: dict[str, float]) -> None:
        self.world = world
        self.markets = {symbol: Market(world, symbol, rate) for symbol, rate in rates.items()}
        self.wires: dict[Wire, None] = {}
        """The open connections, in a fixed order."""
        self.refuses: Callable[[], tuple[Exception, float] | None] = lambda: None
        self.distort: Callable[[Wire, Frame, bytes], list[tuple[bytes, float]]]
        self.distort = lambda wire, frame, raw: [(raw, 0.0)]
        self.answer: Callable[[Frame], float | None] = lambda request: 0.0
        self.delisted: set[str] = set()
        for market in self.markets.values():
            self._schedule(market, self._change, market.rate)
            self._schedule(market, self._trade, market.rate / 3)

    def _schedule(self, market: Market, do: Callable[[Market], None], rate: float) -> None:
        def step() -> None:
            if not market.is_silent:
                do(market)
            self.world.after(min(self.world.random.expovariate(rate), 5.0 / rate), step)

        self.world.after(self.world.random.expovariate(rate), step)

    def _change(self, market: Market) -> None:
        self.publish(market.change())

    def _trade(self, market: Market) -> None:
        self.publish(market.trade())

    def publish(self, frame: Frame) -> None:
        """Send a frame to everybody who has subscribed its topic."""
        for wire in list(self.wires):
            if frame["topic"] in wire.topics:
                wire.push(frame)

    def handle(self, wire: Wire, request: Frame) -> None:
        """Answer a request."""
        delay_s = self.answer(request)
        op = request["op"]
        if op == "ping":
            if delay_s is not None:
                pong = {"success": True, "ret_msg": "pong", "conn_id": "c", "op": "ping"}
                wire.put_late(json.dumps({**pong, "req_id": request["req_id"]}).encode(), delay_s)
            return
        error, snapshots = "", []
        for topic in request["args"]:
            kind, *_, symbol = topic.split(".")
            if symbol not in self.markets or symbol in self.delisted:
                error = f"error:handler not found,topic:{topic}"
            elif op == "subscribe" and topic in wire.topics:
                error = f"error:already subscribed,topic:{topic}"
            elif op == "subscribe" and kind == "orderbook":
                snapshots.append(topic)
            if error:
                break
        if not error:
            (wire.topics.update if op == "subscribe" else wire.topics.difference_update)(
                request["args"]
            )
        ack = {
            "success": not error,
            "ret_msg": error,
            "conn_id": "c",
            "req_id": request["req_id"],
            "op": op,
        }
        if delay_s is not None:
            wire.put_late(json.dumps(ack).encode(), delay_s)
        if not error:
            for topic in snapshots:
                wire.push(self.markets[topic.split(".")[-1]].snapshot())
