"""The exchange's book and the windows that topics publish."""

from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.processes.simulator.market.order_book import (
    BookWindow,
    ExchangeBook,
    SideWindow,
)

puts = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=12)


def applied(book: dict[int, int], changes: list[tuple[int, int]]) -> dict[int, int]:
    """Return a client's side after a delta; deleting an unknown level is an error."""
    for ticks, lots in changes:
        if lots:
            book[ticks] = lots
        else:
            del book[ticks]
    return book


@given(rounds=st.lists(puts, max_size=12), depth=st.integers(1, 8), sign=st.sampled_from([1, -1]))
def test_a_client_that_applies_the_changes_holds_exactly_the_top_levels(
    rounds: list[list[tuple[int, int]]], depth: int, sign: int
) -> None:
    """This holds for any changes between two messages, on both sides and at every depth."""
    book = ExchangeBook(match_ts_ms=0, sequence=0)
    ladder = book.asks if sign > 0 else book.bids
    for ticks in range(10, 30, 2):
        ladder.put(ticks * sign, 1)
    window = SideWindow(ladder, depth)
    client = dict(window.levels())
    for changes in rounds:
        for ticks, lots in changes:
            ladder.put(ticks * sign, lots)
        client = applied(client, window.changes())
        assert dict(ladder.levels(depth)) == client
        assert ladder.levels(depth) == window.levels()
        assert ladder.keys == sorted(ladder.lots)


@given(changes=puts)
def test_changes_contain_only_news(changes: list[tuple[int, int]]) -> None:
    """Each change differs from the published level, and each price occurs once."""
    book = ExchangeBook(match_ts_ms=0, sequence=0)
    for ticks in range(10, 30, 2):
        book.asks.put(ticks, 1)
    window = SideWindow(book.asks, 5)
    before = dict(window.levels())
    for ticks, lots in changes:
        book.asks.put(ticks, lots)
    news = window.changes()
    assert len(news) == len(dict(news))
    assert all(before.get(ticks, 0) != lots for ticks, lots in news)
    assert [] == window.changes()


def test_a_change_below_the_window_gives_no_changes() -> None:
    """A topic sends nothing that its subscribers cannot see."""
    book = ExchangeBook(match_ts_ms=0, sequence=0)
    for ticks in range(10, 20):
        book.bids.put(-ticks, 1)
    window = BookWindow(book, 3)
    book.bids.put(-11, 7)
    assert window.is_touched
    assert ([], []) == (window.bids.changes(), window.asks.changes())


def test_a_closed_window_no_longer_watches_the_book() -> None:
    """The side of the book keeps no reference to it."""
    book = ExchangeBook(match_ts_ms=0, sequence=0)
    first, second = BookWindow(book, 1), BookWindow(book, 1)
    first.close()
    book.asks.put(5, 1)
    assert not first.is_touched
    assert second.is_touched
