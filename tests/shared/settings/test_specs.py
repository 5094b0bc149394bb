"""Spec files on a full disk: a process must be restarted also then."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from bybit_pipeline.shared.settings import specs
from bybit_pipeline.shared.settings.specs import ProcessSpec, read_spec, write_spec


def spec(name: str) -> ProcessSpec:
    """A spec whose file is as long as its name."""
    return ProcessSpec(process=name, role="trades", run_dir="")


def full_disk(_path: Path, _content: bytes) -> NoReturn:
    """Writing another file fails."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["a", "trades-0", "much-longer-than-it-was"])
def test_on_a_full_disk_a_spec_is_overwritten_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "spec.json"
    write_spec(spec("trades-0"), path)
    monkeypatch.setattr(specs, "replace_file", full_disk)
    write_spec(spec(name), path)

    assert name == read_spec(path, ProcessSpec).process


def test_a_spec_without_a_predecessor_needs_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specs, "replace_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_spec(spec("trades-0"), tmp_path / "spec.json")
