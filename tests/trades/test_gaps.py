"""The gaps of trades: when they open and close, and the trades on both sides of them."""

import pytest
from msgspec.structs import replace

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.processes.trades.tape import GapNote
from bybit_pipeline.shared.wire.gaps import TradesGap
from tests.trades.build import T0, link, metrics, our_ns, trade, trades_message


def test_a_reconnect_leaves_a_gap_between_the_last_trade_and_the_first_after(
    aggregator: TradesAggregator,
) -> None:
    aggregator.apply(trades_message(1_000, [trade(999, trade_id="before", sequence=7)]), "BTCUSDT")
    [opened] = aggregator.apply_link("", link("disconnected", 5_000))
    assert "opened" == opened.event
    assert "disconnected" == opened.gap.reason
    assert (T0 + 1_000, None) == (opened.gap.start_ms, opened.gap.end_ms)
    assert (7, "before") == (opened.gap.sequence_before, opened.gap.trade_id_before)
    [closed] = aggregator.apply_link("", link("subscribed", 9_000, session=2))
    assert ("closed", T0 + 9_000) == (closed.event, closed.gap.end_ms)
    assert closed.gap.sequence_after is None
    after = [trade(20_000, trade_id="after", sequence=12), trade(20_000, sequence=13)]
    [completed] = aggregator.apply(trades_message(20_001, after, session=2), "BTCUSDT")
    assert "completed" == completed.event
    assert (12, "after") == (completed.gap.sequence_after, completed.gap.trade_id_after)
    assert T0 + 9_000 == completed.gap.end_ms
    assert [completed.gap] == aggregator.gaps()
    assert [] == aggregator.apply(trades_message(20_100, [trade(20_100)], session=2), "BTCUSDT")


def test_a_gap_closed_by_a_trade_is_complete_at_once(aggregator: TradesAggregator) -> None:
    aggregator.apply(trades_message(0, [trade(0, sequence=1)]), "BTCUSDT")
    notes = aggregator.apply(trades_message(50, [trade(49, sequence=4)]), "BTCUSDT", lost=1)
    assert ["opened", "closed"] == [note.event for note in notes]
    gap = notes[1].gap
    assert ("bus_gap", T0, T0 + 49) == (gap.reason, gap.start_ms, gap.end_ms)
    assert (1, 4) == (gap.sequence_before, gap.sequence_after)


@pytest.mark.parametrize("is_announced", [True, False])
def test_an_open_gap_ends_with_its_source_at_the_time_of_that_source(
    aggregator: TradesAggregator, is_announced: bool
) -> None:
    aggregator.apply(trades_message(1_000, [trade(999, sequence=7)]), "BTCUSDT")
    [opened] = aggregator.apply_link("", link("disconnected", 5_000))
    a_day = 86_400_000
    later = trades_message(
        a_day, [trade(a_day, sequence=90)], session=2, source="live", our_ms=9_000
    )
    notes: list[GapNote] = []
    if is_announced:
        notes += aggregator.apply_link("", link("connected", 9_000, [], session=2, source="live"))
    notes += aggregator.apply(later, "BTCUSDT")
    [closed] = notes
    assert ("closed", 0) == (closed.event, closed.generation)
    duration_s = (T0 + 9_000 - opened.gap.start_ms) / 1_000
    assert replace(opened.gap, end_ms=T0 + 9_000, duration_s=duration_s) == closed.gap
    assert [closed.gap] == aggregator.gaps()


def test_a_gap_of_a_recording_ends_at_the_last_time_of_the_recording(
    aggregator: TradesAggregator,
) -> None:
    aggregator.apply(trades_message(1_000, [trade(999)], source="replay"), "BTCUSDT")
    aggregator.apply_link("", link("disconnected", 5_000, source="replay"))
    [closed] = aggregator.apply_link("", link("connected", 9_000, session=2, source="live"))
    assert (T0 + 1_000, T0 + 1_000) == (closed.gap.start_ms, closed.gap.end_ms)


def test_a_closed_gap_does_not_end_again(aggregator: TradesAggregator) -> None:
    aggregator.apply(trades_message(1_000, [trade(999)]), "BTCUSDT")
    aggregator.apply_link("", link("disconnected", 5_000))
    [closed] = aggregator.apply_link("", link("subscribed", 6_000, session=2))
    notes = aggregator.apply_link("", link("connected", 9_000, session=3, source="live"))
    message = trades_message(9_100, [trade(9_100)], session=3, source="live")
    assert [] == [*notes, *aggregator.apply(message, "BTCUSDT")]
    assert [closed.gap] == aggregator.gaps()


@pytest.mark.parametrize(
    ("leap_ms", "ends_ms"),
    [(28_800_000, 28_802_000), (-28_800_000, 2_000)],
    ids=["our clock was suspended", "the time was wrong before"],
)
def test_an_open_gap_ends_at_the_corrected_time_but_never_before_its_start(
    aggregator: TradesAggregator, leap_ms: int, ends_ms: int
) -> None:
    notes: list[GapNote] = []
    for at_ms, leap in ((0, 0), (1_000, leap_ms), (2_000, leap_ms), (3_000, leap_ms)):
        message = trades_message(at_ms + leap, [trade(at_ms + leap)])
        notes += aggregator.apply(message, "BTCUSDT", our_ns=our_ns(at_ms))
    assert ["opened", "closed"] == [note.event for note in notes]
    assert [0, 0] == [note.generation for note in notes]
    [gap] = aggregator.gaps()
    assert gap == notes[1].gap
    assert ("bad_time", T0, T0 + ends_ms) == (gap.reason, gap.start_ms, gap.end_ms)


def test_the_open_gap_of_an_unsubscribed_symbol_ends(aggregator: TradesAggregator) -> None:
    aggregator.apply(trades_message(1_000, [trade(999)]), "BTCUSDT")
    aggregator.apply_link("", link("unsubscribed", 5_000))
    aggregator.advance(our_ns(6_000))
    aggregator.unsubscribe("BTCUSDT")
    aggregator.subscribe("BTCUSDT")
    assert [] == aggregator.apply(trades_message(7_000, [trade(7_000)]), "BTCUSDT")
    [gap] = aggregator.gaps()
    assert (T0 + 1_000, T0 + 6_000) == (gap.start_ms, gap.end_ms)


@pytest.mark.parametrize("is_quiet", [True, False])
def test_missed_trades_are_a_gap_until_the_next_trade_or_confirmation(
    aggregator: TradesAggregator, is_quiet: bool
) -> None:
    aggregator.apply(trades_message(1_000, [trade(999, sequence=7)]), "BTCUSDT")
    [opened] = aggregator.apply_link("", link("missed", 5_000))
    assert ("opened", "bus_gap", T0 + 999) == (
        opened.event,
        opened.gap.reason,
        opened.gap.start_ms,
    )
    assert "stale" == metrics(aggregator, 5_100)["state"]
    assert [] == aggregator.apply_link("", link("missed", 5_200))
    if is_quiet:
        [closed] = aggregator.apply_link("", link("subscribed", 6_000))
    else:
        [closed] = aggregator.apply(trades_message(6_001, [trade(6_000)]), "BTCUSDT")
    assert ("closed", T0 + 6_000) == (closed.event, closed.gap.end_ms)
    fields = metrics(aggregator, 7_000)
    assert ("warming", 5.001) == (fields["state"], fields["untrusted_s"])


def test_trades_missed_before_the_first_trade_are_a_gap_since_observation_began(
    aggregator: TradesAggregator,
) -> None:
    aggregator.subscribe("ETHUSDT")
    aggregator.apply_link("", link("subscribed", 0))
    aggregator.apply(trades_message(1_000, [trade(1_000)]), "ETHUSDT")
    [opened] = aggregator.apply_link("", link("missed", 5_000))
    assert (T0 + 1_000, None) == (opened.gap.start_ms, opened.gap.trade_id_before)


def test_a_gap_of_missed_trades_continues_when_the_session_ends(
    aggregator: TradesAggregator,
) -> None:
    aggregator.subscribe("ETHUSDT")
    aggregator.apply(trades_message(1_000, [trade(1_000)]), "BTCUSDT")
    aggregator.apply_link("", link("missed", 5_000))
    aggregator.apply(trades_message(5_500, [trade(5_500)]), "ETHUSDT")
    [of_the_other] = aggregator.apply_link("", link("disconnected", 6_000))
    assert "ETHUSDT" == of_the_other.gap.symbol
    [closed] = aggregator.apply_link("", link("subscribed", 7_000, session=2))
    assert (T0 + 1_000, T0 + 7_000) == (closed.gap.start_ms, closed.gap.end_ms)


def test_a_link_that_fails_repeatedly_is_one_gap(aggregator: TradesAggregator) -> None:
    aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
    notes: list[GapNote] = []
    for attempt in range(5):
        notes += aggregator.apply_link("", link("disconnected", attempt * 1_000))
    assert ["opened"] == [note.event for note in notes]


def test_a_start_is_not_a_gap(aggregator: TradesAggregator) -> None:
    assert [] == aggregator.apply_link("", link("disconnected", 0))
    assert [] == aggregator.apply_link("", link("subscribed", 1))
    assert [] == aggregator.apply(trades_message(2, [trade(2)]), "BTCUSDT")
    assert [] == aggregator.gaps()


def test_the_ledger_keeps_the_last_ten_thousand(aggregator: TradesAggregator) -> None:
    for second in range(10_050):
        at_ms = second * 1_000
        aggregator.apply(trades_message(at_ms, [trade(at_ms)]), "BTCUSDT", lost=1)
    gaps = aggregator.gaps()
    assert 10_000 == len(gaps)
    assert T0 + 10_049_000 == gaps[-1].end_ms


def test_a_trade_repeated_after_a_reconnect_counts_once(aggregator: TradesAggregator) -> None:
    aggregator.apply(trades_message(0, [trade(0, trade_id="a")]), "BTCUSDT")
    again = [trade(0, trade_id="a"), trade(1, trade_id="b")]
    aggregator.apply(trades_message(1, again, session=2), "BTCUSDT")
    fields = metrics(aggregator, 1)
    assert 2 == fields["trades_total"]
    assert 1 == aggregator.counts.duplicates


# -- gaps of an earlier process ----------------------------------------------------------------


EARLIER = TradesGap(
    gap_id=77,
    category="linear",
    symbol="BTCUSDT",
    reason="process_down",
    start_ms=T0 + 1_000,
    source="sim",
    sequence_before=7,
    trade_id_before="before",
)


@pytest.fixture
def successor() -> TradesAggregator:
    """The aggregator of a worker that continues the gap of the one before it."""
    aggregator = TradesAggregator()
    aggregator.subscribe("BTCUSDT", gap=EARLIER)
    aggregator.subscribe("ETHUSDT")
    return aggregator


def test_a_gap_of_an_earlier_process_ends_with_the_first_trade(
    successor: TradesAggregator,
) -> None:
    notes = successor.apply(trades_message(3_001, [trade(3_000, sequence=12)]), "BTCUSDT")

    assert [("opened", 77), ("closed", 77)] == [(note.event, note.gap.gap_id) for note in notes]
    closed = notes[1].gap
    assert ("process_down", T0 + 1_000, T0 + 3_000, 2.0) == (
        closed.reason,
        closed.start_ms,
        closed.end_ms,
        closed.duration_s,
    )
    assert (7, "before", 12) == (
        closed.sequence_before,
        closed.trade_id_before,
        closed.sequence_after,
    )


def test_it_ends_with_the_message_that_shows_the_time_of_the_exchange(
    successor: TradesAggregator,
) -> None:
    assert [] == successor.apply_link("", link("subscribed", 2_500))
    successor.apply(trades_message(3_000, [trade(3_000)]), "ETHUSDT")
    tape = successor.tape("BTCUSDT")
    assert tape is not None

    notes = tape.take_due_notes()

    assert ["opened", "closed"] == [note.event for note in notes]
    assert T0 + 3_000 == notes[1].gap.end_ms
    assert [] == tape.take_due_notes()


def test_it_goes_on_while_nothing_is_observed(successor: TradesAggregator) -> None:
    successor.apply_link("", link("connected", 2_000, []))
    assert [] == successor.apply_link("", link("disconnected", 5_000))

    assert [EARLIER] == successor.gaps()


def test_data_of_another_source_do_not_end_it(successor: TradesAggregator) -> None:
    notes = successor.apply(trades_message(3_001, [trade(3_000)], source="live"), "BTCUSDT")

    assert [] == notes
    assert [] == successor.gaps()


def test_messages_held_up_before_a_disconnect_do_not_shorten_the_gap(
    aggregator: TradesAggregator,
) -> None:
    for at_ms in (1_000, 2_000):
        aggregator.apply(trades_message(at_ms, [trade(at_ms)]), "BTCUSDT")
    for at_ms in (2_100, 2_200):  # of a connection that was stalled
        aggregator.apply(trades_message(at_ms, [trade(at_ms)], our_ms=6_000), "BTCUSDT")
    aggregator.apply_link("", link("disconnected", 6_100))
    [closed] = aggregator.apply_link("", link("subscribed", 7_000, session=2))
    assert closed.gap.end_ms is not None
    assert 0 <= T0 + 7_000 - closed.gap.end_ms <= 2
