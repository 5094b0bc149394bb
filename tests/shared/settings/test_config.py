"""Defaults of the configuration, and the names of windows."""

import pytest

from bybit_pipeline.shared.settings.config import Config, window_seconds
from bybit_pipeline.shared.settings.validation import make_config


def test_an_empty_file_gives_the_defaults() -> None:
    config = make_config({})
    assert Config() == config
    assert "auto" == config.source
    assert ("BTCUSDT", "ETHUSDT") == config.market[0].symbols
    assert ("linear", 50) == (config.market[0].category, config.market[0].depth)
    assert "tcp://127.0.0.1:5556" == config.metrics.endpoint


def test_whole_numbers_are_accepted_as_numbers() -> None:
    assert 5.0 == make_config({"density": {"k": 5}}).density.k


@pytest.mark.parametrize(("name", "seconds"), [("10s", 10), ("5m", 300), ("24h", 86_400)])
def test_window_names_give_seconds(name: str, seconds: int) -> None:
    assert seconds == window_seconds(name)


@pytest.mark.parametrize("name", ["", "10", "0s", "s", "25h", "1d", "-5s", "10s "])
def test_other_window_names_are_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="not a window"):
        window_seconds(name)
