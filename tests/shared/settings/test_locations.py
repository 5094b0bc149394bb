"""Default directories of a pipeline."""

from pathlib import Path

import pytest

from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.shared.settings.locations import (
    default_keys_dir,
    default_run_dir,
    own_run_dir,
)


def test_keys_are_kept_with_the_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/cfg")
    assert "/cfg/bybit-pipeline/keys" == default_keys_dir()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert "/home/x/.config/bybit-pipeline/keys" == default_keys_dir()


def test_the_run_directory_is_in_the_runtime_directory_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert "/run/user/7/bybit-pipeline" == default_run_dir()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("os.getuid", lambda: 7)
    assert "/tmp/bybit-pipeline-7" == default_run_dir()


def test_a_default_run_directory_that_others_can_write_to_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert f"{tmp_path}/bybit-pipeline" == own_run_dir()

    (tmp_path / "bybit-pipeline").mkdir()
    (tmp_path / "bybit-pipeline").chmod(0o777)
    with pytest.raises(NoPipelineError, match="open to others"):
        own_run_dir()
