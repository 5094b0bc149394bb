"""
What every message and every moment is checked against: the truth of the exchange.

A ``Viewer`` is one subscriber of the metrics socket. It sees what a user sees: the last message of
every topic, as long as the connection lives and messages arrive.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from tests.simulation.bus import Context, Network, Poller
from tests.simulation.exchange import SIZE_UNIT, TICK, Exchange, Frame, Market
from tests.simulation.world import NEVER, START_S, Process, Thread, World

SILENT_S = 2.0
"""A topic without a message for this long is not live for a user."""
WINDOWS = {"2s": 2, "10s": 10}
MARGIN_S = 0.15
"""For the delays of messages and turns."""


def exact_window(rows: list[Frame], seconds: int) -> dict[str, float | int | None]:
    """The measures of one window, in whole units: thousandths of size, tenths of price."""
    sums = {"Buy": 0, "Sell": 0}
    turnover = 0
    for row in rows:
        size, price = row["units"]
        sums[row["S"]] += size
        turnover += size * price
    buy, sell = sums["Buy"], sums["Sell"]
    prices = [row["units"][1] for row in rows]
    return {
        "trades": len(rows),
        "tpm": len(rows) * 60 / seconds,
        "tps": len(rows) / seconds,
        "volume": (buy + sell) / SIZE_UNIT,
        "buy_volume": buy / SIZE_UNIT,
        "sell_volume": sell / SIZE_UNIT,
        "vol_delta": (buy - sell) / SIZE_UNIT,
        "buy_sell_ratio": buy / sell if sell else None,
        "buy_share": buy / (buy + sell) if rows else None,
        "turnover": turnover / (SIZE_UNIT * TICK),
        "vwap": turnover / (TICK * (buy + sell)) if rows else None,
        "high": max(prices) / TICK if rows else None,
        "low": min(prices) / TICK if rows else None,
    }


class ViolationError(AssertionError):
    """The pipeline broke a promise."""


@dataclass
class View:
    """The last message of one topic."""

    payload: dict[str, Any]
    at: float
    follows_until: float = NEVER
    """When the truth moved away from the numbers; infinite while it has not."""
    not_live_since: float | None = None
    outages: list[tuple[float, float]] = field(default_factory=list)


class Viewer:
    """
    A subscriber that checks every message.

    Attributes:
        views: The last message by topic.
        limit_s: How long a book may be labelled live without following the exchange, now.
        counts: Checked messages by kind and state.
    """

    def __init__(self, world: World, network: Network, endpoint: str, exchange: Exchange) -> None:
        self.world, self.exchange = world, exchange
        self.views: dict[str, View] = {}
        self.counts: Counter[str] = Counter()
        self.hash = hashlib.sha256()
        self.process = Process("viewer")
        context = Context(network, self.process)
        self._subscriber = MetricSubscriber(endpoint, context=context)  # type: ignore[arg-type]
        self._subscriber.subscribe_prefix("")
        poller = Poller()
        self.thread = poller.thread = Thread(
            world, self.process, self._turn, lambda: min(poller.next_arrival(), world.now + 0.1)
        )
        poller.register(self._subscriber.socket, 1)
        poller.register(self._subscriber.monitor, 1)
        self.thread.wake(world.now)

    @property
    def is_connected(self) -> bool:
        return self._subscriber.is_connected

    def is_live(self, topic: str) -> bool:
        """Whether a user takes the numbers of a topic for live."""
        view = self.views.get(topic)
        return (
            view is not None
            and self.is_connected
            and view.payload["state"] == "live"
            and self.world.now - view.at < SILENT_S
        )

    def _turn(self) -> None:
        self._subscriber.follow_connection()
        for metric in self._subscriber.receive():
            kind = metric.topic.partition(".")[0]
            if kind == "process":
                continue
            self.hash.update(metric.topic.encode())
            self.hash.update(repr(sorted(metric.payload.items())).encode())
            self.counts[kind] += 1
            if kind in ("orderbook", "trades"):
                if metric.is_repeat:
                    continue
                self._check(kind, metric.topic, metric.payload)

    def _check(self, kind: str, topic: str, payload: dict[str, Any]) -> None:
        market = self.exchange.markets[payload["symbol"]]
        state = payload["state"]
        self.counts[f"{kind} {state}"] += 1
        view = self.views.get(topic)
        outages = view.outages if view else []
        since = view.not_live_since if view else self.world.now
        if state == "live" or (kind == "trades" and state == "warming"):
            if since is not None:
                outages.append((since, self.world.now))
                self.world.note(f"{topic} live again")
            since = None
        else:
            since = self.world.now if since is None else since
            if view is None or view.payload["reason"] != payload["reason"]:
                self.world.saw(f"{kind} not live: {payload['reason']}", topic)
        if kind == "orderbook":
            follows_until = self._check_book(topic, payload, market)
        else:
            follows_until = self._check_trades(topic, payload, market)
        self.views[topic] = View(payload, self.world.now, follows_until, since, outages)

    def _check_book(self, topic: str, payload: dict[str, Any], market: Market) -> float:
        bids, asks = payload["bids"], payload["asks"]
        if payload["state"] != "live":
            if bids or asks or payload["mid_price"] is not None:
                raise ViolationError(f"{topic} is {payload['state']} and has numbers")
            return NEVER
        update_id = payload["update_id"]
        for at, true_bids, true_asks in reversed(market.versions.get(update_id, [])):
            best_bid, best_ask = true_bids[0], true_asks[0]
            if (
                bids == true_bids[: len(bids)]
                and asks == true_asks[: len(asks)]
                and len(bids) == min(5, len(true_bids))
                and len(asks) == min(5, len(true_asks))
                and [payload["best_bid"], payload["best_bid_size"]] == best_bid
                and [payload["best_ask"], payload["best_ask_size"]] == best_ask
                and abs(payload["mid_price"] - (best_bid[0] + best_ask[0]) / 2) < 1e-6
            ):
                changed = market.changed_after(at)
                return NEVER if changed is None else changed
        raise ViolationError(
            f"{topic} update {update_id} says live with bids {bids} asks {asks}; "
            f"truth {market.versions.get(update_id)}"
        )

    def _check_trades(self, topic: str, payload: dict[str, Any], market: Market) -> float:
        if payload["state"] == "stale" or payload["last_trade_id"] is None:
            return NEVER
        as_of_ms, last_id = payload["as_of_ms"], payload["last_trade_id"]
        for name, seconds in WINDOWS.items():
            shown = payload["windows"][name]
            if shown["coverage_s"] < seconds:
                continue
            rows = market.trades_between(as_of_ms - seconds * 1000, as_of_ms, last_id)
            self.counts["windows"] += 1
            for measure, true in exact_window(rows, seconds).items():
                value = shown[measure]
                if value != true and not (
                    value is not None and true is not None and abs(value - true) <= 1e-9 * abs(true)
                ):
                    raise ViolationError(
                        f"{topic} window {name} as of {as_of_ms} after {last_id}: "
                        f"{measure} {value}, truth {true}"
                    )
        return NEVER

    def follow(self, topic: str) -> float:
        """For how long live numbers have not followed the truth; 0 if they follow."""
        if not self.is_live(topic):
            return 0.0
        view = self.views[topic]
        if view.follows_until == NEVER:
            view.follows_until = self._overtaken(topic, view.payload)
        return max(0.0, self.world.now - view.follows_until)

    def _overtaken(self, topic: str, payload: dict[str, Any]) -> float:
        """When the truth moved away from some numbers; infinite if it has not."""
        market = self.exchange.markets[payload["symbol"]]
        if topic.startswith("orderbook."):
            changed = market.changed_after(market.versions[payload["update_id"]][-1][0])
            return NEVER if changed is None else changed
        if payload["last_trade_id"] is None:
            return NEVER
        place = market.place[payload["last_trade_id"]] + 1
        return market.traded[place] if place < len(market.traded) else NEVER

    def report(self) -> str:
        """The state of every topic."""
        return "\n".join(
            f"    {topic}: {view.payload['state']} {view.payload.get('reason')} "
            f"since {view.not_live_since and round(view.not_live_since - START_S, 2)}, "
            f"last message {self.world.now - view.at:.2f} s ago"
            for topic, view in sorted(self.views.items())
        )
