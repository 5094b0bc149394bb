"""The gap ledger, and gaps as users see them."""

import msgspec
import pytest
from msgspec.structs import replace

from bybit_pipeline.shared.wire.gaps import (
    BookGap,
    BookGapEvent,
    GapLedger,
    TradesGap,
    TradesGapEvent,
    event_fields,
)


def trades_gap(ledger: GapLedger[TradesGap], start_ms: int = 1_000) -> TradesGap:
    return TradesGap(
        gap_id=ledger.new_id(),
        category="linear",
        symbol="BTCUSDT",
        reason="disconnected",
        start_ms=start_ms,
        trade_id_before="before",
    )


def closed(gap: TradesGap) -> TradesGap:
    return replace(gap, end_ms=gap.start_ms + 500, duration_s=0.5)


@pytest.fixture
def ledger() -> GapLedger[TradesGap]:
    return GapLedger(TradesGap, limit=3)


def test_a_gap_is_listed_with_its_newest_values(ledger: GapLedger[TradesGap]) -> None:
    gap = trades_gap(ledger)
    ledger.put(gap)
    assert [gap] == ledger.gaps()

    ledger.put(closed(gap))
    assert [closed(gap)] == ledger.gaps()

    complete = replace(closed(gap), trade_id_after="after")
    ledger.put(complete)
    assert [complete] == ledger.gaps()
    assert 1 == len(ledger)


def test_gaps_are_listed_in_the_order_in_which_they_opened(ledger: GapLedger[TradesGap]) -> None:
    first, second, third = (trades_gap(ledger, start_ms) for start_ms in (3_000, 1_000, 2_000))
    for gap in (third, first, second):
        ledger.put(gap)
    ledger.put(closed(second))

    assert [first, closed(second), third] == ledger.gaps()


def test_only_the_oldest_closed_gaps_are_removed(ledger: GapLedger[TradesGap]) -> None:
    still_open = trades_gap(ledger)
    ledger.put(still_open)
    gaps = [closed(trades_gap(ledger)) for _ in range(5)]
    for gap in gaps:
        ledger.put(gap)

    assert [still_open, *gaps[2:]] == ledger.gaps()
    assert 4 == len(ledger)


def test_an_open_gap_can_be_removed(ledger: GapLedger[TradesGap]) -> None:
    gap = trades_gap(ledger)
    ledger.put(gap)

    ledger.forget(gap)

    assert [] == ledger.gaps()


def test_a_book_gap_without_a_snapshot_ends_with_its_duration() -> None:
    gap = BookGap(
        gap_id=1,
        category="linear",
        symbol="BTCUSDT",
        reason="gap",
        opened_ts_ns=5,
        start_ms=None,
        update_id_before=None,
        sequence_before=None,
        received_update_id=None,
    )
    assert gap.is_open
    assert not replace(gap, duration_s=1.0).is_open


def test_a_listed_gap_names_its_stream(ledger: GapLedger[TradesGap]) -> None:
    row = msgspec.to_builtins(trades_gap(ledger))

    assert ("trades", 1, "BTCUSDT", None) == (
        row["stream"],
        row["gap_id"],
        row["symbol"],
        row["end_ms"],
    )


@pytest.mark.parametrize(("event", "gap"), [(TradesGapEvent, TradesGap), (BookGapEvent, BookGap)])
def test_an_event_has_all_fields_of_its_gap(
    event: type[msgspec.Struct], gap: type[msgspec.Struct]
) -> None:
    assert set(gap.__struct_fields__) <= set(event.__struct_fields__)


def test_an_event_is_its_gap_and_the_common_fields(ledger: GapLedger[TradesGap]) -> None:
    gap = closed(trades_gap(ledger))

    event = TradesGapEvent(
        source="live",
        process="trades-0",
        epoch="epoch",
        seq=7,
        publish_ts_ns=9,
        state="warming",
        event="closed",
        category=gap.category,
        symbol=gap.symbol,
        **event_fields(gap),
    )

    payload = msgspec.to_builtins(event)
    assert event_fields(gap).items() <= payload.items()
    assert (1, "gap", "trades", "closed", 7) == (
        payload["v"],
        payload["kind"],
        payload["stream"],
        payload["event"],
        payload["seq"],
    )
    assert payload["recv_ts_ns"] is None


def test_a_gap_is_reported_once_with_its_newest_values(ledger: GapLedger[TradesGap]) -> None:
    gap = trades_gap(ledger)
    ledger.put(gap)
    ledger.put(closed(gap))

    assert [closed(gap)] == ledger.take_changes()
    assert [] == ledger.take_changes()


def test_the_end_of_a_gap_that_is_forgotten_is_reported(ledger: GapLedger[TradesGap]) -> None:
    gap = trades_gap(ledger)
    ledger.put(gap)
    ledger.take_changes()

    ledger.forget(closed(gap))

    assert [closed(gap)] == ledger.take_changes()
    assert [] == ledger.gaps()


def test_a_gap_left_open_is_not_reported(ledger: GapLedger[TradesGap]) -> None:
    gap = trades_gap(ledger)
    ledger.put(gap)

    ledger.leave_open(gap)

    assert [] == ledger.take_changes()
    assert [] == ledger.gaps()


def test_ids_continue_after_the_given_one() -> None:
    assert 101 == GapLedger(TradesGap, last_id=100).new_id()
