"""What a configuration may say, and how each mistake is refused."""

from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.config import Config, make_config, read_config, window_seconds


def test_an_empty_file_gives_the_defaults() -> None:
    config = make_config({})
    assert config == Config()
    assert config.source == "auto"
    assert config.market[0].symbols == ("BTCUSDT", "ETHUSDT")
    assert (config.market[0].category, config.market[0].depth) == ("linear", 50)
    assert config.metrics.endpoint == "tcp://127.0.0.1:5556"


def test_whole_numbers_serve_where_numbers_are_wanted() -> None:
    assert make_config({"density": {"k": 5}}).density.k == 5.0


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"sorce": "live"}, "sorce", "did you mean source?"),
    ({"market": [{"symbol": ["A"]}]}, "market[0].symbol", "symbols"),
    ({"connector": {"ping": 1}}, "connector.ping", "ping_interval_s"),
    ({"source": "real"}, "source", "auto, live, sim, replay"),
    ({"network": "devnet"}, "network", "mainnet, testnet"),
    ({"market": [{"category": "perp"}]}, "market[0].category", "spot, linear, inverse, option"),
    ({"market": [{"streams": ["ticker"]}]}, "market[0].streams[0]", "trades, orderbook"),
    ({"market": [{"depth": 25}]}, "market[0].depth", "1, 50, 200, 1000"),
    ({"market": [{"category": "option", "depth": 50}]}, "market[0].depth", "25, 100"),
    ({"market": []}, "market", "at least one"),
    ({"market": [{"symbols": []}]}, "market[0].symbols", "at least one"),
    ({"market": [{"streams": []}]}, "market[0].streams", "at least one"),
    ({"market": [{"symbols": ["btcusdt"]}]}, "market[0].symbols[0]", "capitals"),
    ({"market": [{"symbols": ["BTCUSDT"] * 2}]}, "market[0].symbols[1]", "once"),
    ({"market": [{}, {"depth": 1}]}, "market[1].symbols[0]", "once"),
    ({"market": [{"symbols": ["*usdt"]}]}, "market[0].symbols[0]", "*USDT"),
    ({"market": [{"symbols": ["top:5:volume"]}]}, "market[0].symbols[0]", "top:50:turnover"),
    ({"market": [{"symbols": ["A*", "A*"]}]}, "market[0].symbols[1]", "once"),
    (
        {"market": [{"category": "option", "depth": 25, "symbols": ["*"]}]},
        "market[0].symbols[0]",
        "BTC-*",
    ),
    ({"instruments": {"refresh_s": 0}}, "instruments.refresh_s", "from 1 to 86400"),
    ({"instruments": {"url": "api.bybit.com"}}, "instruments.url", "https://HOST"),
    ({"instruments": {"symbols_max": 5000}}, "instruments.symbols_max", "to 3000"),
    ({"market": {"depth": 1}}, "market", "a list"),
    ({"workers": {"trades": "two"}}, "workers.trades", "a whole number"),
    ({"workers": {"orderbook": 0}}, "workers.orderbook", "from 1 to 64"),
    ({"trades": {"windows": ["1 minute"]}}, "trades.windows[0]", "10s, 5m or 1h"),
    ({"trades": {"windows": []}}, "trades.windows", "at least one"),
    ({"trades": {"windows": ["1m", "1m"]}}, "trades.windows", "each value once"),
    ({"orderbook": {"depth_bps": [0]}}, "orderbook.depth_bps[0]", "from 0.01"),
    ({"density": {"k": float("nan")}}, "density.k", "from 1"),
    ({"density": {"eaten_ratio": 2}}, "density.eaten_ratio", "to 1"),
    ({"connector": {"backoff_max_s": 1}}, "connector.backoff_max_s", "at least 5"),
    ({"connector": {"ping_interval_s": -1}}, "connector.ping_interval_s", "from 0.05"),
    ({"url": "http://x"}, "url", "ws://"),
    ({"url": "ws://127.0.0.1:99999/x"}, "url", "PORT"),
    ({"url": "ws://127.0.0.1:abc/x"}, "url", "PORT"),
    ({"url": "ws://:9"}, "url", "HOST"),
    ({"url": "ws://h/v5/{foo}"}, "url", "{category}"),
    ({"replay": {"speed": float("nan")}}, "replay.speed", "at most 10000"),
    ({"source": "replay"}, "replay.capture", "capture file"),
    ({"metrics": {"endpoint": "5556"}}, "metrics.endpoint", "tcp://127.0.0.1:PORT"),
    ({"metrics": {"endpoint": "tcp://0.0.0.0:5556"}}, "metrics.endpoint", "127.0.0.1 only"),
    ({"metrics": {"endpoint": "tcp://*:5556"}}, "metrics.endpoint", "security.curve = true"),
    (
        {"metrics": {"endpoint": "tcp://192.0.2.7:1"}, "security": {"keys": "/k"}},
        "metrics.endpoint",
        "security.curve = true",
    ),
    ({"security": {"curve": "yes"}}, "security.curve", "true or false"),
    ({"security": {"verify": False}}, "security.verify", "curve, keys"),
    ({"prometheus": {"port": 70000}}, "prometheus.port", "to 65535"),
    ({"dashboard": {"port": 70000}}, "dashboard.port", "to 65535"),
    ({"dashboard": {"host": "0.0.0.0"}}, "dashboard.host", "127.0.0.1, ::1, localhost"),
    ({"run_dir": "/tmp/" + "x" * 100}, "run_dir", "80 bytes"),
]


@pytest.mark.parametrize(("tables", "where", "allowed"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_mistake_is_refused_with_its_place_and_what_is_allowed(
    tables: dict[str, Any], where: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_config(tables)
    assert refusal.value.where == where
    assert allowed in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.7", "eth0"])
def test_with_keys_the_metrics_may_leave_this_machine(host: str) -> None:
    config = make_config(
        {"metrics": {"endpoint": f"tcp://{host}:5556"}, "security": {"curve": True}}
    )
    assert config.metrics.endpoint == f"tcp://{host}:5556"


def test_one_symbol_may_have_its_trades_and_its_book_in_two_tables() -> None:
    config = make_config({"market": [{"streams": ["trades"]}, {"streams": ["orderbook"]}]})
    assert len(config.market) == 2


@pytest.mark.parametrize("text", ["a = ", "[[market]]\nsymbols = [1", "\x00"])
def test_a_file_that_is_not_toml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not TOML") as refusal:
        read_config(path)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "nothing.toml")


@pytest.mark.parametrize(("name", "seconds"), [("10s", 10), ("5m", 300), ("24h", 86_400)])
def test_window_names_give_seconds(name: str, seconds: int) -> None:
    assert seconds == window_seconds(name)


@pytest.mark.parametrize("name", ["", "10", "0s", "s", "25h", "1d", "-5s", "10s "])
def test_other_window_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a window"):
        window_seconds(name)
