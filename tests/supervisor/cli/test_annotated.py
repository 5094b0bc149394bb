"""The annotated configuration: complete, with the given values, and valid."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.cli.annotated import WIDTH, annotated
from bybit_pipeline.supervisor.cli.main import main


def text_of(config: Config) -> str:
    """The file for a configuration."""
    return "\n".join(annotated(config))


def keys(value: Any) -> Any:
    """The keys of tables within tables."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [keys(inner) for inner in value if isinstance(inner, dict)]
    return None


def test_the_file_has_every_key_at_its_default() -> None:
    tables = tomllib.loads(text_of(Config()))

    assert Config() == make_config(tables)
    assert keys(msgspec.to_builtins(Config())) == keys(tables)


def test_every_key_has_a_comment() -> None:
    lines = text_of(Config()).splitlines()
    for before, line in itertools.pairwise(lines):
        if " = " in line.partition("#")[0]:
            assert "# " in line or before.startswith("# "), line
    assert [] == [line for line in lines if len(line) > WIDTH]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "source": st.sampled_from(["auto", "live", "sim"]),
            "security": st.fixed_dictionaries({"curve": st.booleans(), "keys": TEXTS}),
            "replay": st.fixed_dictionaries({"capture": TEXTS}),
            "density": st.fixed_dictionaries({"k": st.floats(1, 1e6)}),
            "orderbook": st.fixed_dictionaries(
                {
                    "impact_notionals": st.lists(st.floats(1e-9, 1e15), unique=True),
                    "depth_bps": st.lists(st.integers(1, 10_000), unique=True),
                }
            ),
            "market": st.lists(
                st.sampled_from(["AUSDT", "BUSDT", "*USDC", "top:5:turnover"]),
                min_size=1,
                unique=True,
            ).map(lambda symbols: [{"symbols": [s], "depth": 200} for s in symbols]),
        },
    )
)
def test_any_configuration_can_be_written_and_read_again(tables: dict[str, Any]) -> None:
    config = make_config(tables)

    assert config == make_config(tomllib.loads(text_of(config)))


def test_the_command_shows_the_values_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[workers]\ntrades = 3\n[[market]]\nsymbols = ["SOLUSDT"]\ndepth = 200\n')

    assert 0 == main(["config", "--config", str(path)])
    out = capsys.readouterr().out

    assert 3 == tomllib.loads(out)["workers"]["trades"]
    [line] = [line for line in out.splitlines() if line.startswith("trades = 3")]
    assert line.endswith("(1 to 64; default 1)")
    assert ["SOLUSDT"] == tomllib.loads(out)["market"][0]["symbols"]


def test_the_command_rejects_a_bad_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[workers]\ntrades = 0\norderbook = 0\n")

    assert 78 == main(["config", "--config", str(path)])
    out, err = capsys.readouterr()
    assert "" == out
    assert [f"{path}:2: workers.trades", f"{path}:3: workers.orderbook"] == [
        ": ".join(line.split(": ")[:2]) for line in err.splitlines()
    ]
