"""The default settings find few walls in recorded books, and the same ones at every depth."""

from pathlib import Path

import pytest

from bybit_pipeline.shared.settings.config import DensityConfig
from scripts.reliability.walls import EVENTS_LIMIT, WALLS_LIMIT, count_walls, main

CAPTURES = [
    "linear_20260809_ob200_BTC_SOL.jsonl",
    "spot_20260809_ob200_ETH.jsonl",
    "linear_20241201_ob500_XRP.data",
]


@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("depth", [None, 200, 50])
@pytest.mark.parametrize("interval_ms", [20, 100, 500])
def test_the_default_settings_stay_within_the_limits(
    captures: Path, name: str, depth: int | None, interval_ms: int
) -> None:
    counts = count_walls(captures / name, DensityConfig(), depth=depth, interval_ms=interval_ms)
    assert counts
    for count in counts:
        assert 1 <= count.walls_max <= WALLS_LIMIT
        assert count.events_per_minute <= EVENTS_LIMIT


@pytest.mark.parametrize("share", [0.13, 0.15, 0.2])
@pytest.mark.parametrize("k", [3.0, 7.0, 12.0])
def test_the_limits_do_not_depend_on_the_exact_settings(
    captures: Path, share: float, k: float
) -> None:
    for name in CAPTURES[:2]:
        for depth in (None, 50):
            for count in count_walls(
                captures / name, DensityConfig(k=k, min_share=share), depth=depth
            ):
                assert count.walls_max <= WALLS_LIMIT
                assert count.events_per_minute <= EVENTS_LIMIT


def test_a_reduced_book_has_the_levels_of_the_recorded_one(captures: Path) -> None:
    path = captures / CAPTURES[1]
    every = DensityConfig(k=1.0, min_share=0.0, min_age_s=0.0, range_bps=10_000)
    (deep,) = count_walls(path, every)
    (shallow,) = count_walls(path, every, depth=50)
    assert 200 == deep.depth
    assert 50 == shallow.depth
    assert 0 < shallow.walls_max < deep.walls_max
    assert shallow.walls_max <= 2 * 50


def test_the_script_prints_a_line_per_book(
    captures: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main([str(captures / CAPTURES[0]), "--min-share", "0", "--json", str(tmp_path / "walls.json")])
    header, btc, sol = capsys.readouterr().out.splitlines()
    assert "capture" == header.split()[0]
    assert ["BTCUSDT", "SOLUSDT"] == [line.split()[1] for line in (btc, sol)]
    assert btc.endswith("*"), "above the limit without a minimum share"
    assert (tmp_path / "walls.json").read_bytes().startswith(b'[{"capture":')
