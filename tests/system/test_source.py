"""The source of data: fallback only at start, a clean change to live, rejections by name."""

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.system.conftest import Start
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline, kill, until
from tests.system.test_life import is_live

FAST = """
[connector]
backoff_initial_s = 0.2
backoff_max_s = 1.0
fallback_after_s = 0.5
[trades]
publish_interval_ms = 20
[orderbook]
publish_interval_ms = 20
"""


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def exchange() -> Iterator[Callable[..., Exchange]]:
    """Start a simulated exchange with the given options; it is stopped at the end of the test."""
    running: list[Exchange] = []

    def exchange(*arguments: str) -> Exchange:
        running.append(Exchange(*arguments))
        return running[-1]

    yield exchange
    for server in running:
        server.kill()


def test_auto_falls_back_with_a_warning_and_changes_to_live_when_the_exchange_answers(
    start: Start, exchange: Callable[..., Exchange]
) -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}/v5/public/{{category}}"
    pipeline = start("--source", "auto", "--url", url, "--symbols", "BTCUSDT", config=FAST)
    pipeline.first(lambda m: is_live("trades", "BTCUSDT")(m) and m["source"] == "sim")
    pipeline.first(lambda m: is_live("orderbook", "BTCUSDT")(m) and m["source"] == "sim")
    until(lambda: pipeline.status()["source"] == "sim", "the status says sim")
    assert "SIMULATED" in pipeline.log.read_text()
    exchange("--port", str(port), "--seed", "7")
    check_change_over(pipeline)
    until(lambda: pipeline.status()["source"] == "live", "the status says live")
    until(lambda: "simulator" not in processes(pipeline), "the simulator is gone")
    pipeline.stop()


def states(pipeline: Pipeline) -> set[str]:
    """Return the states of the topics of the first connector."""
    return set(pipeline.status()["connectors"][0]["topics"].values())


def processes(pipeline: Pipeline) -> set[str]:
    """Return the names of the running processes."""
    return {entry["process"] for entry in pipeline.status()["processes"]}


def check_change_over(pipeline: Pipeline) -> None:
    """From simulated to live: each topic changes once, in a new epoch, without old state."""
    epochs: dict[str, dict[str, str]] = {}
    first_live: dict[str, int] = {}
    for message in pipeline.messages():
        if message["kind"] not in ("trades", "orderbook"):
            continue
        sources = epochs.setdefault(message["topic"], {})
        assert sources.setdefault(message["epoch"], message["source"]) == message["source"]
        if message["source"] == "live" and message["kind"] == "trades":
            first_live.setdefault(message["topic"], message["trades_total"])
        else:
            assert message["topic"] not in first_live, "simulated after live"
        if is_live("orderbook", "BTCUSDT")(message) and message["source"] == "live" and first_live:
            break
    for sources in epochs.values():
        assert sorted(sources.values()) == ["live", "sim"]
    assert list(first_live.values()) == [0]


def test_once_live_a_lost_link_is_reconnected_and_never_simulated(
    start: Start, exchange: Callable[..., Exchange]
) -> None:
    port = free_port()
    first = exchange("--port", str(port))
    url = f"ws://127.0.0.1:{port}/v5/public/{{category}}"
    patient = FAST.replace("fallback_after_s = 0.5", "fallback_after_s = 10")
    pipeline = start("--url", url, "--symbols", "BTCUSDT", config=patient)
    pipeline.first(is_live("orderbook", "BTCUSDT"))
    first.kill()
    stale = pipeline.first(lambda m: m["kind"] == "orderbook" and m["state"] == "stale")
    assert stale["reason"] == "disconnected"
    assert stale["mid_price"] is None
    assert stale["bids"] == []
    exchange("--port", str(port))
    pipeline.first(is_live("orderbook", "BTCUSDT"))
    assert pipeline.status()["source"] == "live"
    [connector] = pipeline.endpoints()["market"]
    assert pipeline.total(connector, "connector_reconnects_total") >= 1
    assert "SIMULATED" not in pipeline.log.read_text()


def test_a_rejected_symbol_is_reported_and_the_others_continue(
    start: Start, exchange: Callable[..., Exchange]
) -> None:
    url = exchange("--symbols", "BTCUSDT,ETHUSDT").url
    pipeline = start(
        "--source", "live", "--url", url, "--symbols", "BTCUSDT,NOPEUSDT,ETHUSDT", config=FAST
    )
    for symbol in ("BTCUSDT", "ETHUSDT"):
        pipeline.first(is_live("orderbook", symbol))
    topics = until(lambda: rejected(pipeline), "the refusal in the status")
    assert topics == {"orderbook.50.NOPEUSDT", "publicTrade.NOPEUSDT"}
    code, body = pipeline.http("/readyz")
    assert code == 503
    assert "NOPEUSDT" in body
    assert "NOPEUSDT" in pipeline.log.read_text()


def test_a_subscribed_symbol_that_is_rejected_leaves_nothing_behind(start: Start) -> None:
    pipeline = start("--source", "sim", "--symbols", "BTCUSDT", config=FAST)
    pipeline.wait_ready()
    processes = [entry["process"] for entry in pipeline.status()["processes"]]
    topics = pipeline.status()["connectors"][0]["topics"].keys()

    done = pipeline.command("subscribe", "linear:NOPEUSDT", "spot:NOPEUSDT", "linear:SOLUSDT")

    assert done.returncode == 1
    assert {"publicTrade.SOLUSDT", "orderbook.50.SOLUSDT"} == {
        line.split()[1] for line in done.stdout.splitlines()
    }
    assert done.stderr.count("NOPEUSDT rejected: ") == 4
    assert "handler not found" in done.stderr
    farewells = [
        (kind, category, "NOPEUSDT", "stale", "unsubscribed")
        for kind in ("orderbook", "trades")
        for category in ("linear", "spot")
    ]
    pipeline.first_of_each(*(partial(is_said, farewell) for farewell in farewells))
    pipeline.command("unsubscribe", "linear:SOLUSDT")
    until(lambda: pipeline.status()["books"] == {"syncing": 0, "live": 1, "stale": 0}, "one book")
    status = pipeline.status()
    assert status["ready"], status["reasons"]
    assert [entry["process"] for entry in status["processes"]] == processes
    kill(pipeline.pid("connector-linear-0"))
    until(lambda: pipeline.http("/readyz")[0] == 200, "ready after a reconnect")
    assert pipeline.status()["connectors"][0]["topics"].keys() == topics


def is_said(wanted: tuple[str, ...], message: dict[str, Any]) -> bool:
    """A condition: a message with this text."""
    fields = ("kind", "category", "symbol", "state", "reason")
    return tuple(message.get(field) for field in fields) == wanted


def rejected(pipeline: Pipeline) -> set[str]:
    """Return the topics rejected by the exchange, once there are two."""
    pipeline.endpoints()
    topics = pipeline.status()["connectors"][0]["topics"]
    named = {topic for topic, state in topics.items() if state == "rejected"}
    return named if len(named) == 2 else set()


def test_a_subscription_that_is_refused_for_a_while_is_served_in_the_end(
    start: Start, exchange: Callable[..., Exchange]
) -> None:
    """The first requests and the first repetition fail, for trades and books alike."""
    url = exchange("--symbols", "BTCUSDT", "--fault", "unavailable:times=4").url
    pipeline = start("--source", "live", "--url", url, "--symbols", "BTCUSDT", config=FAST)
    pipeline.first(is_live("orderbook", "BTCUSDT"))
    pipeline.first(is_live("trades", "BTCUSDT"))
    until(lambda: states(pipeline) == {"delivering"}, "both topics deliver")
    assert "internal server error" in pipeline.log.read_text()


@pytest.mark.parametrize("category", ["spot", "inverse", "option"])
def test_other_categories_work_the_same_way(
    start: Start, exchange: Callable[..., Exchange], category: str
) -> None:
    arguments = ["--source", "sim", "--category", category]
    if category == "inverse":
        arguments += ["--symbols", "BTCUSD"]
    if category == "option":
        arguments += ["--symbols", "BTC-25DEC26-90000-C", "--depth", "25"]
    pipeline = start(*arguments, config=FAST)
    pipeline.first(
        lambda m: m["kind"] == "orderbook" and m["state"] == "live" and m["category"] == category
    )
