"""No spoiled book gets past: the short form of ``scripts/faults``."""

from tests.system.integrity import run


def test_every_fault_is_noticed_and_no_wrong_number_is_published() -> None:
    figures = run(300, timeout_s=100)
    print(figures.report())
    assert figures.wrong == []
    assert figures.undetected == []
    assert figures.detected == sum(figures.injected.values()) == 300
    assert figures.live_books_checked > 1000
