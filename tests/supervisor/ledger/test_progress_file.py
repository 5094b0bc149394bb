"""The progress file: what a killed pipeline leaves, and nothing that is not complete."""

from pathlib import Path

import pytest

from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.supervisor.ledger.progress_file import ProgressFile

BOOK = Progress("book", "linear", "BTCUSDT", "live", 5, 6, 7)
TRADES = Progress("trades", "linear", "BTCUSDT", "live", 8, None, 9, "id")


def workers(*topics: Progress) -> list[bytes]:
    return [codec.encode_progress([topic]) for topic in topics]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that a pipeline has written twice, the second time less."""
    path = tmp_path / "progress"
    file = ProgressFile(path, "mainnet")
    file.write(workers(BOOK, BOOK))
    file.write(workers(BOOK, TRADES))
    return path


def test_the_last_progress_is_found_again(path: Path) -> None:
    saved = ProgressFile(path, "mainnet").read()

    assert saved is not None
    assert ("mainnet", [BOOK, TRADES]) == saved


def test_less_progress_replaces_more(path: Path) -> None:
    file = ProgressFile(path, "mainnet")
    file.write(workers(BOOK))

    saved = ProgressFile(path, "mainnet").read()
    assert saved is not None
    assert [BOOK] == saved.topics


def test_an_incomplete_file_is_ignored(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert None is ProgressFile(path, "mainnet").read()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert None is ProgressFile(path, "mainnet").read()


def test_without_a_file_there_is_no_progress(tmp_path: Path) -> None:
    assert None is ProgressFile(tmp_path / "none", "mainnet").read()


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "missing" / "progress", "mainnet")

    file.write(workers(BOOK))
    file.close()
