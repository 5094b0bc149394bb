"""Requests of command lines, with a fake pipeline and a fake router."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import pytest

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.status.requests import RequestHandler
from bybit_pipeline.supervisor.status.router import ControlRouter, Envelope
from bybit_pipeline.supervisor.status.snapshot import Snapshot

CONNECTOR = "connector-linear-0"
BOOK, TRADES = "orderbook.50.NOPEUSDT", "publicTrade.NOPEUSDT"


class FakeRouter:
    """Collects what is sent."""

    def __init__(self) -> None:
        self.invalid: Counter[str] = Counter()
        self.sent: list[tuple[str | bytes, Mapping[str, Any]]] = []

    def send(self, receiver: str | bytes, message: Mapping[str, Any]) -> None:
        """Collect a message."""
        self.sent.append((receiver, message))


class FakePipeline:
    """A plan with one connector, whose topics have the given states."""

    def __init__(self) -> None:
        self.plan = make_plan(make_config({"market": [{"symbols": ["BTCUSDT"]}]}), run_dir="/r")
        self.is_running = True
        self.topics: dict[str, str] = {}

    def gaps(self) -> dict[str, Any]:
        """No gaps."""
        return {"gaps": [], "waiting": [], "state_dir": "/s"}

    def refresh(self) -> Snapshot:
        """The status of the connector."""
        connector = {"process": CONNECTOR, "topics": self.topics, "rejected": {}}
        return Snapshot(status={"connectors": [connector]})

    def change_plan(self, plan: Plan) -> None:
        """Take the plan."""
        self.plan = plan


class World:
    """A handler and what surrounds it."""

    def __init__(self) -> None:
        self.router = FakeRouter()
        self.pipeline = FakePipeline()
        self.telemetry = Telemetry()
        router = cast(ControlRouter, self.router)
        self.handler = RequestHandler(self.pipeline, router, self.telemetry)

    def ask(self, command: Any, **arguments: Any) -> Mapping[str, Any]:
        """The reply to a request."""
        message = {"type": "request", "id": 7, "command": command, "arguments": arguments}
        self.handler.handle(Envelope(b"cli", message))
        receiver, reply = self.router.sent[-1]
        assert (b"cli", "reply", 7) == (receiver, reply["type"], reply["id"])
        return reply

    @property
    def symbols(self) -> set[str]:
        """The symbols in the plan."""
        return {placement.stream.symbol for placement in self.pipeline.plan.placements}


@pytest.fixture
def world() -> World:
    """BTCUSDT, linear."""
    return World()


def test_status_is_that_of_a_new_snapshot(world: World) -> None:
    reply = world.ask("status")

    assert reply["ok"]
    assert world.pipeline.refresh().status == reply["result"]


def test_subscribe_and_unsubscribe_change_the_plan_and_name_the_topics(world: World) -> None:
    result = world.ask("subscribe", markets=["ETHUSDT", "linear:top:5:turnover"])["result"]

    assert {"BTCUSDT", "ETHUSDT"} == world.symbols
    assert [
        {"process": CONNECTOR, "topic": "publicTrade.ETHUSDT", "bus_topic": "trade.linear.ETHUSDT"},
        {"process": CONNECTOR, "topic": "orderbook.50.ETHUSDT", "bus_topic": "book.linear.ETHUSDT"},
    ] == result["topics"]
    assert (["linear:top:5:turnover"], 1) == (result["patterns"], result["symbols"])

    result = world.ask("unsubscribe", markets=["linear:ETHUSDT"])["result"]

    assert {"BTCUSDT"} == world.symbols
    assert ["trade.linear.ETHUSDT", "book.linear.ETHUSDT"] == [
        topic["bus_topic"] for topic in result["topics"]
    ]


@pytest.mark.parametrize(
    ("command", "arguments", "error"),
    [
        ("explode", {}, "unknown command 'explode'"),
        ("subscribe", {"markets": "linear:BTCUSDT"}, "subscribe has a list of markets"),
        ("unsubscribe", {}, "unsubscribe has a list of markets"),
        ("subscribe", {"markets": [], "depth": 1}, "subscribe has a list of markets"),
        ("answers", {"topics": [1]}, "answers has a list of topics"),
        (5, {}, "a request has an id and a command"),
    ],
)
def test_a_request_that_is_not_understood_is_rejected_and_counted(
    world: World, command: Any, arguments: dict[str, Any], error: str
) -> None:
    reply = world.ask(command, **arguments)

    assert (False, error, 64) == (reply["ok"], reply["error"], reply["exit_code"])
    assert {"content": 1} == world.router.invalid


def test_a_market_that_is_not_subscribed_is_an_error_of_the_user(world: World) -> None:
    reply = world.ask("unsubscribe", markets=["linear:DOGEUSDT"])

    assert ("linear:DOGEUSDT is not subscribed", 64) == (reply["error"], reply["exit_code"])
    assert not world.router.invalid


def test_a_pipeline_that_stops_rejects_requests(world: World) -> None:
    world.pipeline.is_running = False

    reply = world.ask("status")

    assert ("the pipeline is stopping", 69) == (reply["error"], reply["exit_code"])


# -- subscriptions that the exchange rejects ---------------------------------------------------


def test_answers_follow_the_exchange_from_pending_to_accepted(world: World) -> None:
    world.ask("subscribe", markets=["linear:ETHUSDT"])
    topics = ["trade.linear.ETHUSDT", "book.linear.ETHUSDT", "book.linear.BTCUSDT"]
    world.pipeline.topics = {
        "publicTrade.ETHUSDT": "confirmed",
        "orderbook.50.ETHUSDT": "pending",
        "orderbook.50.BTCUSDT": "delivering",
    }
    world.handler.drop_rejected(CONNECTOR, {"topics": world.pipeline.topics})

    answers = world.ask("answers", topics=topics)["result"]["answers"]

    assert ["confirmed", "pending", "delivering"] == [answers[topic]["state"] for topic in topics]


def test_a_rejected_subscription_is_removed_counted_and_answered_with_its_reason(
    world: World,
) -> None:
    world.ask("subscribe", markets=["linear:NOPEUSDT"])
    reason = "error:handler not found"

    world.handler.drop_rejected(
        CONNECTOR,
        {
            "topics": dict.fromkeys((BOOK, TRADES), "rejected"),
            "rejected": dict.fromkeys((BOOK, TRADES), reason),
            "refused_topics": [BOOK, TRADES],
        },
    )

    assert {"BTCUSDT"} == world.symbols
    answers = world.ask("answers", topics=["book.linear.NOPEUSDT"])["result"]["answers"]
    assert {"book.linear.NOPEUSDT": {"state": "rejected", "reason": reason}} == answers
    name = "bybit_pipeline_subscriptions_refused_total"
    assert 2 == world.telemetry.registry.get_sample_value(name)


# -- gaps --------------------------------------------------------------------------------------


def test_gaps_are_answered_also_while_the_pipeline_stops(world: World) -> None:
    world.pipeline.is_running = False

    assert "/s" == world.ask("gaps")["result"]["state_dir"]
