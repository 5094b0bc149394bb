"""Valid configurations, and the message about each mistake in the others."""

from typing import Any

import pytest

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.validation import make_config, warnings

REJECTED: list[tuple[dict[str, Any], str, str]] = [
    ({"sorce": "live"}, "sorce", "did you mean source?"),
    ({"market": [{"symbol": ["A"]}]}, "market[0].symbol", "did you mean symbols?"),
    ({"connector": {"ping": 1}}, "connector.ping", "ping_interval_s"),
    ({"source": "real"}, "source", "use auto, live, sim or replay"),
    ({"network": "devnet"}, "network", "use mainnet or testnet"),
    (
        {"market": [{"category": "perp"}]},
        "market[0].category",
        "use spot, linear, inverse or option",
    ),
    ({"market": [{"streams": ["ticker"]}]}, "market[0].streams[0]", "use trades or orderbook"),
    ({"market": [{"depth": 25}]}, "market[0].depth", "use 1, 50, 200 or 1000"),
    ({"market": [{"category": "option", "depth": 50}]}, "market[0].depth", "use 25 or 100"),
    ({"market": []}, "market", "at least one"),
    ({"market": [{"symbols": []}]}, "market[0].symbols", "at least one"),
    ({"market": [{"streams": []}]}, "market[0].streams", "at least one"),
    ({"market": [{"symbols": ["btcusdt"]}]}, "market[0].symbols[0]", "capitals"),
    ({"market": [{"symbols": ["BTCUSDT"] * 2}]}, "market[0].symbols[1]", "once"),
    ({"market": [{}, {"depth": 1, "symbols": ["ETHUSDT"]}]}, "market[1].symbols[0]", "once"),
    ({"market": [{"symbols": ["*usdt"]}]}, "market[0].symbols[0]", "*USDT"),
    ({"market": [{"symbols": ["top:5:volume"]}]}, "market[0].symbols[0]", "top:50:turnover"),
    ({"market": [{"symbols": ["A*", "A*"]}]}, "market[0].symbols[1]", "once"),
    (
        {"market": [{"category": "option", "depth": 25, "symbols": ["*"]}]},
        "market[0].symbols[0]",
        "BTC-*",
    ),
    ({"instruments": {"refresh_s": 0}}, "instruments.refresh_s", "use 1 to 86400"),
    ({"instruments": {"url": "api.bybit.com"}}, "instruments.url", "https://HOST"),
    ({"instruments": {"symbols_max": 5000}}, "instruments.symbols_max", "use 1 to 3000"),
    ({"market": {"depth": 1}}, "market", "two pairs of brackets: [[market]]"),
    ({"workers": {"trades": "two"}}, "workers.trades", "is not a whole number; use 1 to 64"),
    ({"workers": {"orderbook": 0}}, "workers.orderbook", "use 1 to 64"),
    ({"trades": {"windows": ["1 minute"]}}, "trades.windows[0]", "10s, 5m or 1h"),
    ({"trades": {"windows": []}}, "trades.windows", "at least one"),
    ({"trades": {"windows": ["1m", "1m"]}}, "trades.windows", "each value once"),
    ({"orderbook": {"depth_bps": [0]}}, "orderbook.depth_bps[0]", "use 0.01 to 10000"),
    ({"density": {"k": float("nan")}}, "density.k", "use 1 to 1000000"),
    ({"density": {"eaten_ratio": 2}}, "density.eaten_ratio", "use 0.01 to 1"),
    ({"connector": {"backoff_max_s": 1}}, "connector.backoff_max_s", "use 5 or more"),
    ({"connector": {"ping_interval_s": -1}}, "connector.ping_interval_s", "use 0.05 to 3600"),
    ({"url": "http://x"}, "url", "ws://"),
    ({"url": "ws://127.0.0.1:99999/x"}, "url", "PORT"),
    ({"url": "ws://127.0.0.1:abc/x"}, "url", "PORT"),
    ({"url": "ws://:9"}, "url", "HOST"),
    ({"url": "ws://h/v5/{foo}"}, "url", "{category}"),
    ({"replay": {"speed": float("nan")}}, "replay.speed", "use more than 0, up to 10000"),
    ({"source": "replay"}, "replay.capture", "use a capture file"),
    ({"metrics": {"endpoint": "5556"}}, "metrics.endpoint", "tcp://127.0.0.1:PORT"),
    (
        {"metrics": {"endpoint": "tcp://0.0.0.0:5556"}},
        "metrics.endpoint",
        "use 127.0.0.1, or security.curve = true",
    ),
    ({"metrics": {"endpoint": "tcp://*:5556"}}, "metrics.endpoint", "security.curve = true"),
    (
        {"metrics": {"endpoint": "tcp://192.0.2.7:1"}, "security": {"keys": "/k"}},
        "metrics.endpoint",
        "security.curve = true",
    ),
    ({"security": {"curve": "yes"}}, "security.curve", "true or false"),
    ({"security": {"verify": False}}, "security.verify", "use curve or keys"),
    ({"prometheus": {"port": 70000}}, "prometheus.port", "use 0 to 65535"),
    ({"dashboard": {"port": 70000}}, "dashboard.port", "use 0 to 65535"),
    ({"dashboard": {"host": "0.0.0.0"}}, "dashboard.host", "use 127.0.0.1, ::1 or localhost"),
    ({"run_dir": "/tmp/" + "x" * 100}, "run_dir", "use at most 80 bytes"),
    ({"connector": {"silence": 1}}, "connector.silence", "use topics_per_socket, "),
    ({"connector": 5}, "connector", "5 is not a table; use [connector] on its own line"),
    ({"market": 5}, "market", "5 is not a table; use [[market]] on its own line"),
    ({"market": [5]}, "market[0]", "5 is not a table"),
    ({"market": [{"symbols": "BTCUSDT"}]}, "market[0].symbols", "'BTCUSDT' is not a list"),
    ({"market": [{"symbols": ["A", 5]}]}, "market[0].symbols[1]", "5 is not text"),
    ({"market": [{"depth": True}]}, "market[0].depth", "true is not a whole number"),
    ({"url": 5}, "url", "5 is not text; use text in quotes"),
    ({"density": {"k": "7"}}, "density.k", "'7' is not a number"),
    ({"workers": {"trades": 1.5}}, "workers.trades", "1.5 is not a whole number"),
    ({"trades": {"quantiles": [1.5]}}, "trades.quantiles[0]", "use 0 to 1"),
    ({"prometheus": {"host": ""}}, "prometheus.host", "is empty"),
    ({"metrics": {"endpoint": "tcp://127.0.0.1:70000"}}, "metrics.endpoint", "use 0 to 65535"),
    (
        {"orderbook": {"imbalance_levels": [1, 100]}},
        "orderbook.imbalance_levels[1]",
        "100 is deeper than every book; use 50 or less",
    ),
]


LIBRARY_WORDS = ("expected `", "got `", "should be", "valid integer", "errno", "enum", "object")


@pytest.mark.parametrize(
    ("tables", "where", "expected"), REJECTED, ids=lambda value: str(value)[:40]
)
def test_a_mistake_is_rejected_with_its_place_and_what_is_allowed(
    tables: dict[str, Any], where: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as rejection:
        make_config(tables)
    [line] = str(rejection.value).splitlines()
    assert where == rejection.value.where
    assert line.startswith(f"{where}: ")
    assert expected in line
    assert [] == [word for word in LIBRARY_WORDS if word in line.lower()]


def mistakes_in(tables: dict[str, Any]) -> list[str]:
    """The keys with a mistake."""
    with pytest.raises(ConfigError) as rejection:
        make_config(tables)
    return [mistake.where for mistake in rejection.value.mistakes]


def test_all_mistakes_are_reported_at_once() -> None:
    tables = {
        "sauce": "live",
        "source": "real",
        "market": [
            {"depth": 51, "symbols": ["btc", "BTCUSDT"], "deep": 1},
            {"category": "option", "depth": "100", "symbols": ["BTCUSDT", "*"]},
        ],
        "workers": {"trades": "two", "orderbook": 0},
        "density": {"k": 0},
        "trades": {"windows": ["1y"]},
    }
    assert {
        "sauce",
        "source",
        "market[0].depth",
        "market[0].symbols[0]",
        "market[0].deep",
        "market[1].depth",
        "market[1].symbols[1]",
        "workers.trades",
        "workers.orderbook",
        "density.k",
        "trades.windows[0]",
    } == set(mistakes_in(tables))


@pytest.mark.parametrize(
    ("tables", "where"),
    [
        # The depth of an unknown category cannot be judged.
        ({"market": [{"category": "perp", "depth": 25}]}, "market[0].category"),
        # Neither can a maximum below a minimum that is not a number, ...
        (
            {"connector": {"backoff_initial_s": "5", "backoff_max_s": 1}},
            "connector.backoff_initial_s",
        ),
        # ... an address that may be protected by keys, ...
        (
            {"metrics": {"endpoint": "tcp://*:1"}, "security": {"curve": "yes"}},
            "security.curve",
        ),
        # ... or levels of a book of unknown depth.
        (
            {"market": [{"depth": "200"}], "orderbook": {"imbalance_levels": [100]}},
            "market[0].depth",
        ),
        (
            {"market": [{"depth": 51}], "orderbook": {"imbalance_levels": [100]}},
            "market[0].depth",
        ),
        ({"source": "replay", "replay": {"capture": 5}}, "replay.capture"),
    ],
)
def test_a_mistake_does_not_cause_a_second_one(tables: dict[str, Any], where: str) -> None:
    assert [where] == mistakes_in(tables)


@pytest.mark.parametrize(
    ("depths", "levels"), [([50], [50]), ([50, 200], [100]), ([1], None), ([200], [1, 200])]
)
def test_imbalance_levels_need_one_book_that_is_deep_enough(
    depths: list[int], levels: list[int] | None
) -> None:
    markets = [{"depth": depth, "symbols": [f"A{depth}"]} for depth in depths]
    tables: dict[str, Any] = {"market": markets}
    if levels is not None:
        tables["orderbook"] = {"imbalance_levels": levels}
    assert depths == [market.depth for market in make_config(tables).market]


def test_trades_alone_have_no_depth_for_imbalance_levels() -> None:
    make_config({"market": [{"streams": ["trades"]}], "orderbook": {"imbalance_levels": [200]}})


def test_a_recording_may_be_deeper_than_the_default_book() -> None:
    make_config(
        {
            "source": "replay",
            "replay": {"capture": "x"},
            "orderbook": {"imbalance_levels": [200]},
        }
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.7", "eth0"])
def test_with_keys_the_metrics_may_leave_this_machine(host: str) -> None:
    config = make_config(
        {"metrics": {"endpoint": f"tcp://{host}:5556"}, "security": {"curve": True}}
    )
    assert config.metrics.endpoint == f"tcp://{host}:5556"


def test_one_symbol_may_have_its_trades_and_its_book_in_two_tables() -> None:
    config = make_config({"market": [{"streams": ["trades"]}, {"streams": ["orderbook"]}]})
    assert len(config.market) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_there_is_no_warning_about_pages_for_this_machine(host: str) -> None:
    assert [] == list(warnings(make_config({"prometheus": {"host": host}})))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "collector"])
def test_pages_that_other_machines_can_read_are_warned_about(host: str) -> None:
    [warning] = warnings(make_config({"prometheus": {"host": host}}))

    assert "prometheus.host" == warning.where
    assert str(warning).startswith(f"prometheus.host: {host} can be reached from other machines")
