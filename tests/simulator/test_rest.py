"""The REST endpoints of the simulated exchange: paging, ranking, listing and delisting."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from bybit_pipeline.processes.simulator import rest
from bybit_pipeline.processes.simulator.faults import REST_HOWS, make_fault
from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.scenario import parse_scenario
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.simulator.server import ServerThread
from tests.simulator.client import Client, full_feed, running
from tests.simulator.test_instruments import TODAY

NOW_MS = 1_735_809_771_618


def ask(target: str, **fault: Any) -> dict[str, Any]:
    """Return the envelope of a response."""
    broken = make_fault("rest", **fault) if fault else None
    answer = rest.respond(f"/v5/market/{target}", full_feed(), NOW_MS, fault=broken)
    assert answer.status == 200
    return dict(json.loads(answer.body))


def symbols(envelope: dict[str, Any]) -> list[str]:
    """Return the symbols of a page."""
    return [row["symbol"] for row in envelope["result"]["list"]]


def test_the_pages_contain_the_whole_list_and_the_last_has_no_cursor() -> None:
    whole = symbols(ask("instruments-info?category=linear"))
    found, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page = ask(f"instruments-info?category=linear&limit=10&cursor={cursor}")
        found += symbols(page)
        cursor = page["result"]["nextPageCursor"]
        pages += 1

    assert len(whole) > 30
    assert found == whole
    assert pages == 4


def test_a_cursor_is_accepted_verbatim_and_encoded_again() -> None:
    """The official client sends it verbatim, other clients encode it again."""
    cursor = ask("instruments-info?category=linear&limit=5")["result"]["nextPageCursor"]
    assert "%3D" in cursor

    pages = [
        symbols(ask(f"instruments-info?category=linear&limit=5&cursor={token}"))
        for token in (cursor, cursor.replace("%", "%25"))
    ]

    assert pages[0] == pages[1]
    assert len(pages[0]) == 5


def test_spot_has_one_page_for_any_limit() -> None:
    envelope = ask("instruments-info?category=spot&limit=1&cursor=x")

    assert len(symbols(envelope)) > 20
    assert envelope["result"]["nextPageCursor"] == ""


def test_a_request_for_options_returns_those_of_one_base_coin() -> None:
    assert {s.split("-")[0] for s in symbols(ask("instruments-info?category=option"))} == {"BTC"}
    ethers = ask("instruments-info?category=option&baseCoin=ETH")
    assert {s.split("-")[0] for s in symbols(ethers)} == {"ETH"}


@pytest.mark.parametrize(
    "target",
    [
        "instruments-info?category=margin",
        "instruments-info",
        "instruments-info?category=linear&limit=1001",
        "instruments-info?category=linear&limit=0",
        "instruments-info?category=linear&cursor=nonsense",
        "tickers?category=option",
    ],
)
def test_wrong_parameters_are_rejected_with_a_code(target: str) -> None:
    assert ask(target)["retCode"] == 10001


def test_busy_instruments_have_more_turnover_than_quiet_ones() -> None:
    rows = ask("tickers?category=linear")["result"]["list"]

    ranked = sorted(rows, key=lambda row: -float(row["turnover24h"]))

    assert {ranked[0]["symbol"], ranked[1]["symbol"]} == {"BTCUSDT", "ETHUSDT"}
    assert len({row["turnover24h"] for row in rows}) == len(rows)


def test_turnover_of_inverse_contracts_is_in_the_base_coin() -> None:
    rows = {row["symbol"]: row for row in ask("tickers?category=inverse")["result"]["list"]}

    bitcoin = rows["BTCUSD"]
    assert float(bitcoin["turnover24h"]) * float(bitcoin["lastPrice"]) == pytest.approx(
        float(bitcoin["volume24h"])
    )


@pytest.mark.parametrize("how", ["code", "empty", "loop", "part"])
def test_each_rest_fault_damages_the_response(how: str) -> None:
    sound = ask("instruments-info?category=linear")
    damaged = ask("instruments-info?category=linear", how=how)

    assert damaged != sound
    assert len(damaged["result"].get("list", ())) <= len(symbols(sound))


def test_every_kind_of_damage_is_tested() -> None:
    assert set(REST_HOWS) == {"text", "code", "empty", "loop", "part"}


def get(server: ServerThread, target: str) -> tuple[int, str, bytes]:
    """Return status, content type and body of a request over a real socket."""
    url = f"http://127.0.0.1:{server.server.port}{target}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", error.read()


def test_the_websocket_port_also_answers_rest_requests() -> None:
    with running() as server, Client(server, "linear") as client:
        client.subscribe("publicTrade.BTCUSDT")
        status, kind, body = get(server, "/v5/market/instruments-info?category=linear")
        assert (status, kind) == (200, "application/json")
        assert json.loads(body)["retCode"] == 0
        assert get(server, "/v5/market/nothing")[0] == 404
        server.server.faults.set("rest", status=429)
        assert get(server, "/v5/market/time")[0] == 429
        server.server.faults.clear("rest")
        server.server.faults.set("rest", how="text")
        assert get(server, "/v5/market/time")[2].startswith(b"<html>")
        client.until_topic("publicTrade.BTCUSDT")


def test_a_delisted_symbol_is_silent_and_rejected() -> None:
    """Other symbols continue, and a subscriber can still unsubscribe the delisted one."""
    with running() as server, Client(server, "linear") as client:
        client.subscribe("orderbook.50.SOLUSDT", "publicTrade.SOLUSDT", "orderbook.50.BTCUSDT")
        client.until_topic("orderbook.50.SOLUSDT", 3)
        server.call(server.server.feed.delist, ("linear", "SOLUSDT"))  # type: ignore[attr-defined]
        listed = json.loads(get(server, "/v5/market/instruments-info?category=linear")[2])
        assert "SOLUSDT" not in symbols(listed)
        client.ask(op="ping")  # its answer follows everything that was sent before
        client.messages.clear()
        client.until_topic("orderbook.50.BTCUSDT", 20)
        assert "orderbook.50.SOLUSDT" not in {each.get("topic") for each in client.messages}
        rejection = client.subscribe("orderbook.200.SOLUSDT")
        assert "handler not found" in rejection["ret_msg"]
        assert client.ask(op="unsubscribe", args=["orderbook.50.SOLUSDT"])["success"]
        client.until_topic("orderbook.50.BTCUSDT")


SCENARIO = """
{"at_ms": 1000, "do": "list", "symbol": "NEWUSDT", "turnover": 1e12}
{"at_ms": 1000, "do": "delist", "symbol": "ETHUSDT"}
{"at_ms": 2000, "do": "delist", "symbol": "NEWUSDT"}
{"at_ms": 2000, "do": "list", "symbol": "ETHUSDT"}
"""


def test_a_scenario_lists_and_delists_instruments() -> None:
    names = ("BTCUSDT", "ETHUSDT", "NEWUSDT")
    feed = SyntheticFeed(
        [instrument_named("linear", name, TODAY) for name in names],
        scenario=parse_scenario(SCENARIO),
    )
    seen = []
    for now_ms in (0, 999, 1000, 1999, 2000):
        feed.poll(NOW_MS + now_ms)
        seen.append([each.symbol for each in feed.listed("linear")])

    old, new = ["BTCUSDT", "ETHUSDT"], ["BTCUSDT", "NEWUSDT"]
    assert seen == [old, old, new, new, old]
    feed.perform(
        parse_scenario('{"do": "list", "symbol": "NEWUSDT", "turnover": 5}'), NOW_MS + 2100
    )
    feed.poll(NOW_MS + 2100)
    assert {each.symbol: each.turnover for each in feed.listed("linear")}["NEWUSDT"] == 5
    assert feed.serves(("linear", "orderbook.50.NEWUSDT"))
