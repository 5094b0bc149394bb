"""One thread ends another thread's wait."""

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from bybit_pipeline.shared.runtime.wakeup import Wakeup

TIMEOUT_S = 10.0


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def is_set(wakeup: Wakeup, *, within_s: float = 0.0) -> bool:
    return bool(select.select([wakeup], [], [], within_s)[0])


def test_it_is_readable_from_set_to_clear(wakeup: Wakeup) -> None:
    assert not is_set(wakeup)
    wakeup.set()
    assert is_set(wakeup)
    assert is_set(wakeup)
    wakeup.clear()
    assert not is_set(wakeup)


def test_any_number_of_sets_is_cleared_at_once(wakeup: Wakeup) -> None:
    """Also more than the pipe holds."""
    for _ in range(100_000):
        wakeup.set()
    wakeup.clear()
    assert not is_set(wakeup)
    wakeup.clear()
    wakeup.set()
    assert is_set(wakeup)


def test_another_thread_ends_the_wait(wakeup: Wakeup) -> None:
    thread = threading.Thread(target=wakeup.set)
    thread.start()
    assert is_set(wakeup, within_s=TIMEOUT_S)
    thread.join()


def test_a_signal_ends_the_wait(wakeup: Wakeup) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        wakeup.catch_signals()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert is_set(wakeup, within_s=TIMEOUT_S)
        wakeup.close()
        assert -1 == signal.set_wakeup_fd(-1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_set_after_close_writes_to_nothing(wakeup: Wakeup) -> None:
    """The number of a closed descriptor may belong to another file by then."""
    descriptor = wakeup.fileno()
    wakeup.close()
    wakeup.close()
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        assert descriptor in (reader, writer)
        wakeup.set()
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)
