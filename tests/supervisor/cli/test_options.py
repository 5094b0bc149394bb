"""Configurations from a file, options and a capture."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.captures import CaptureInfo
from bybit_pipeline.shared.settings.config import Config, MarketConfig
from bybit_pipeline.shared.settings.curve_keys import make_server_keys
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.cli.options import Options, recorded_markets, resolve
from bybit_pipeline.supervisor.plan.plan import make_plan
from bybit_pipeline.supervisor.plan.process_specs import make_spec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file with two markets."""
    path = tmp_path / "pipeline.toml"
    path.write_text(
        """
        source = "live"
        run_dir = "/run/from-file"
        [[market]]
        category = "spot"
        symbols = ["AUSDT"]
        depth = 200
        streams = ["orderbook"]
        [[market]]
        symbols = ["BUSDT"]
        [prometheus]
        port = 1234
        """
    )
    return path


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A linear capture: a book of BTC with trades, a book of SOL without."""
    lines: list[dict[str, Any]] = [
        _book("orderbook.200.BTCUSDT"),
        _book("orderbook.50.SOLUSDT"),
        {
            "topic": "publicTrade.BTCUSDT",
            "type": "snapshot",
            "ts": 2,
            "data": [
                {"T": 2, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2", "L": "PlusTick", "i": "x"}
            ],
        },
    ]
    path = tmp_path / "recorded.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _book(topic: str) -> dict[str, Any]:
    return {
        "topic": topic,
        "type": "snapshot",
        "ts": 1,
        "cts": 1,
        "data": {"s": topic.split(".")[2], "b": [], "a": [], "u": 1, "seq": 1},
    }


def config(**options: Any) -> Config:
    return resolve(Options(**options))[0]


def test_the_default_is_two_linear_books() -> None:
    assert Config() == config()


def test_options_override_the_file(file: Path) -> None:
    made, run_dir, _ = resolve(
        Options(
            config=file,
            source="sim",
            network="testnet",
            url="ws://h:1/{category}",
            run_dir=Path("/run/x"),
            metrics="tcp://127.0.0.1:7",
            port=0,
            speed=5.0,
        )
    )

    assert ("sim", "testnet", "ws://h:1/{category}") == (made.source, made.network, made.url)
    assert ("tcp://127.0.0.1:7", 0, 5.0) == (
        made.metrics.endpoint,
        made.prometheus.port,
        made.replay.speed,
    )
    assert "/run/x" == run_dir


def test_the_dashboard_is_off_by_default() -> None:
    assert not resolve(Options())[0].dashboard.enabled
    assert (True, 9480) == (
        (made := resolve(Options(dashboard=True))[0].dashboard).enabled,
        made.port,
    )


def test_port_0_applies_to_the_dashboard_too() -> None:
    assert 0 == config(port=0, dashboard=True).dashboard.port
    assert Config().dashboard.port == config(port=9500, dashboard=True).dashboard.port


def test_the_file_applies_where_no_option_is_given(file: Path) -> None:
    made, run_dir, _ = resolve(Options(config=file))

    assert ("live", 1234, 2) == (made.source, made.prometheus.port, len(made.market))
    assert "/run/from-file" == run_dir


def test_a_market_option_replaces_all_tables_by_the_first_one_with_the_option(file: Path) -> None:
    made = config(config=file, symbols="CUSDT, DUSDT")

    assert (
        MarketConfig(
            category="spot", symbols=("CUSDT", "DUSDT"), depth=200, streams=("orderbook",)
        ),
    ) == made.market


@pytest.mark.parametrize(
    ("options", "category", "symbols", "depth"),
    [
        ({"category": "spot"}, "spot", ("BTCUSDT", "ETHUSDT"), 50),
        ({"category": "inverse"}, "inverse", ("BTCUSD", "ETHUSD"), 50),
        ({"depth": 1}, "linear", ("BTCUSDT", "ETHUSDT"), 1),
        ({"category": "option", "symbols": "BTC-1-2-C"}, "option", ("BTC-1-2-C",), 25),
    ],
)
def test_defaults_suit_the_category(
    options: dict[str, Any], category: str, symbols: tuple[str, ...], depth: int
) -> None:
    [market] = config(**options).market

    assert (category, symbols, depth) == (market.category, market.symbols, market.depth)


def test_options_have_no_default_contracts() -> None:
    with pytest.raises(ConfigError, match=r"^market\[0\]\.symbols: missing"):
        config(category="option")


# -- origins of mistakes -----------------------------------------------------------------------


def lines_of(**options: Any) -> list[str]:
    """The lines about the mistakes of a configuration."""
    with pytest.raises(ConfigError) as rejection:
        resolve(Options(**options))
    return str(rejection.value).splitlines()


def test_every_mistake_of_a_file_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(
        """\
sauce = "live"
[[market]]
symbols = [
    "BTCUSDT",
    "btc",
]
depth = 51
[workers]
trades = "two"
"""
    )
    assert [
        f"{path}:1: sauce: unknown key; did you mean source?",
        f"{path}:5: market[0].symbols[1]: 'btc' is not a symbol; "
        "use capitals and digits, such as BTCUSDT, or a pattern such as *USDT",
        f"{path}:7: market[0].depth: 51 is not offered for linear; use 1, 50, 200 or 1000",
        f"{path}:9: workers.trades: 'two' is not a whole number; use 1 to 64",
    ] == lines_of(config=path)


def test_a_mistake_in_an_option_names_the_option(file: Path) -> None:
    [line] = lines_of(config=file, depth=51)
    assert "--depth: market[0].depth: 51 is not offered for spot; use 1, 50, 200 or 1000" == line

    [line] = lines_of(symbols="BTCUSDT,btc")
    assert line.startswith("--symbols: market[0].symbols[1]: 'btc' is not a symbol")

    assert ["--network: 'devnet' is unknown; use mainnet or testnet"] == lines_of(network="devnet")


def test_options_and_the_file_may_both_be_wrong(file: Path) -> None:
    file.write_text("[[market]]\ndepth = 51\n")
    assert [
        "--port: prometheus.port: 70000 is out of range; use 0 to 65535",
        f"{file}:2: market[0].depth: 51 is not offered for linear; use 1, 50, 200 or 1000",
    ] == lines_of(config=file, port=70000)


def test_a_single_bracket_market_is_explained(file: Path) -> None:
    file.write_text("[market]\ndepth = 50\n")
    assert [
        f"{file}:1: market: [market] is a single table; use two pairs of brackets: [[market]]"
    ] == lines_of(config=file)


# -- captures ----------------------------------------------------------------------------------


def test_a_capture_alone_means_replay_of_everything_in_it(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(capture.parent)
    made = config(capture=Path("recorded.jsonl"), speed=50.0)

    assert ("replay", str(capture), 50.0) == (
        made.source,
        made.replay.capture,
        made.replay.speed,
    )
    assert (
        MarketConfig(symbols=("BTCUSDT",), depth=200),
        MarketConfig(symbols=("SOLUSDT",), depth=50, streams=("orderbook",)),
    ) == made.market


@pytest.mark.parametrize("source", ["live", "auto", "sim"])
def test_a_capture_is_only_played_by_replay(capture: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=f"^--source: '{source}' does not play .*use replay$"):
        config(capture=capture, source=source)


def test_symbols_restrict_a_capture_and_keep_its_depth(capture: Path) -> None:
    [market] = config(capture=capture, symbols="BTCUSDT").market

    assert (("BTCUSDT",), 200) == (market.symbols, market.depth)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"symbols": "BTCUSDT,ETHUSDT"},
            r"market\[0\]\.symbols\[1\]: ETHUSDT.*use BTCUSDT or SOLUSDT",
        ),
        ({"depth": 1}, r"market\[0\]\.depth: 1 is not.*use 50 or 200"),
        ({"category": "spot"}, r"market\[0\]\.category: spot is not.*use linear"),
    ],
)
def test_a_market_that_was_not_recorded_is_rejected_with_what_was(
    capture: Path, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        config(capture=capture, **options)


def test_patterns_match_the_symbols_of_a_capture(capture: Path) -> None:
    markets = config(capture=capture, symbols="B*,SOLUSDT").market
    assert {"BTCUSDT", "SOLUSDT"} == {symbol for market in markets for symbol in market.symbols}

    for word, expected in (("X*", "X* matches nothing"), ("top:2:turnover", "needs turnover")):
        with pytest.raises(ConfigError, match=re.escape(expected)):
            config(capture=capture, symbols=word)


def test_a_pattern_for_recorded_options_needs_no_base_coin(tmp_path: Path) -> None:
    name = "BTC-30OCT26-65000-C-USDT"
    path = tmp_path / "options.jsonl"
    path.write_text(json.dumps({"id": f"orderbook.25.{name}-1", **_book(f"orderbook.25.{name}")}))

    [market] = config(capture=path, symbols="*").market

    assert ("option", (name,)) == (market.category, market.symbols)


def test_patterns_are_accepted_in_options(tmp_path: Path) -> None:
    assert config(symbols="*USDT,top:50:turnover").market[0].symbols == ("*USDT", "top:50:turnover")


def test_a_missing_capture_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--capture: replay\.capture: .*No such file"):
        config(capture=tmp_path / "none.jsonl")


def test_a_capture_without_trades_and_books_is_rejected() -> None:
    info = CaptureInfo(Path("t"), "linear", {}, (), {"tickers.BTCUSDT": 1}, 1, 0, 0, 1, 1)

    with pytest.raises(ConfigError, match="use a capture of trades or order books"):
        recorded_markets(info, None)


def test_the_deepest_recorded_book_is_taken_unless_another_is_wanted() -> None:
    info = CaptureInfo(Path("t"), "linear", {"AUSDT": (1, 50)}, (), {}, 2, 0, 0, 1, 1)

    assert [50] == [table["depth"] for table in recorded_markets(info, None)]
    assert [1] == [table["depth"] for table in recorded_markets(info, [{"depth": 1}])]


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("linear_20260809_ob200_BTC_SOL.jsonl", {("linear", 200, ("BTCUSDT", "SOLUSDT"), 2)}),
        ("spot_20260809_ob200_ETH.jsonl", {("spot", 200, ("ETHUSDT",), 2)}),
        ("linear_20241201_ob500_XRP.data", {("linear", 500, ("XRPUSDT",), 1)}),
        (
            "linear_20250613_ob1_4symbols.jsonl",
            {("linear", 1, ("AIOZUSDT", "BANDUSDT", "RADUSDT", "SNTUSDT"), 1)},
        ),
    ],
)
def test_every_recorded_capture_just_works(captures: Path, name: str, tables: Any) -> None:
    made = config(capture=captures / name)

    assert tables == {(m.category, m.depth, m.symbols, len(m.streams)) for m in made.market}


# -- the run directory -------------------------------------------------------------------------


def test_the_run_directory_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert f"{tmp_path}/here" == resolve(Options(run_dir=Path("here")))[1]


# -- keys --------------------------------------------------------------------------------------


def test_the_directory_of_keys_is_made_absolute_for_the_forwarder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_server_keys(tmp_path / "keys")
    path = tmp_path / "pipeline.toml"
    path.write_text('source = "sim"\nsecurity = {curve = true, keys = "keys"}')
    monkeypatch.chdir(tmp_path)

    plan = make_plan(config(config=path), run_dir="/run/x")

    assert f"{tmp_path}/keys" == plan.keys == make_spec(plan, "forwarder").keys  # type: ignore[attr-defined]


@pytest.mark.parametrize("missing", ["server.key", "client.key", "server.pub"])
def test_missing_keys_are_rejected_before_anything_starts(tmp_path: Path, missing: str) -> None:
    make_server_keys(tmp_path / "keys")
    (tmp_path / "keys" / missing).unlink()
    path = tmp_path / "pipeline.toml"
    path.write_text(f'security = {{curve = true, keys = "{tmp_path}/keys"}}')

    with pytest.raises(
        ConfigError, match=rf"pipeline\.toml:1: security\.keys: .*{missing}.*bybit-pipeline keys"
    ):
        config(config=path)


def test_without_curve_no_keys_are_read(tmp_path: Path) -> None:
    assert make_plan(make_config({"security": {"keys": "/nowhere"}}), run_dir="/run/x").keys is None
