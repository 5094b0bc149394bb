"""No faulty book is published: a short form of ``scripts/faults``."""

from scripts.reliability.integrity import SYMBOLS, run
from tests.system.conftest import Start
from tests.system.pipeline import kill, until


def test_every_fault_is_noticed_and_no_wrong_number_is_published() -> None:
    figures = run(300, timeout_s=100)
    print(figures.report())
    assert figures.wrong == []
    assert figures.undetected == []
    assert figures.detected == sum(figures.injected.values()) == 300
    assert figures.live_books_checked > 1000


def test_all_books_of_a_killed_worker_are_live_again_within_five_seconds(start: Start) -> None:
    pipeline = start(
        "--source",
        "sim",
        "--symbols",
        ",".join(SYMBOLS),
        config="[connector]\ntopics_per_socket = 500\n",
        topics="process.",
    )
    pipeline.wait_ready()
    before = pipeline.pid("orderbook-0")
    kill(before)
    until(lambda: pipeline.pid("orderbook-0") not in (before, 0), "a successor", 5)
    until(lambda: pipeline.status()["books"] == {"live": 50, "stale": 0, "syncing": 0}, "live", 5)
    connector = pipeline.status()["connectors"][0]
    assert connector["reconnects"] == 0, "the resyncs left the connection alone"
