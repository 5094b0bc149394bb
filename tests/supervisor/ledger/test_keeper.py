"""The gaps of a pipeline: one row an outage, whoever dies and whoever reports it."""

from typing import Any

import msgspec
import pytest

from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.gaps import BookGap, TradesGap
from bybit_pipeline.shared.wire.messages import Source
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.supervisor.ledger.keeper import LedgerKeeper
from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow, TopicKey
from bybit_pipeline.supervisor.ledger.store import LedgerState
from tests.supervisor.ledger.rows import NOON_MS, RUN, interval, open_row

BOOK = TopicKey("book", "linear", "BTCUSDT")
TRADES = TopicKey("trades", "linear", "BTCUSDT")
WORKER, FIRST, SECOND = "orderbook-0", 1_000, 2_000


class World:
    """A keeper with one worker, and what it has written."""

    def __init__(self, state: LedgerState | None = None) -> None:
        self.rows: dict[int, GapRow] = {}
        self.followed: dict[tuple[TopicKey, Source], Followed] = {}
        self.now = 100.0
        self.keeper = LedgerKeeper(
            RUN, "mainnet", self, state, last_id=0, now=self.now, now_ns=self.now_ns
        )
        self.keeper.topics = {BOOK, TRADES}
        self.keeper.on_start(WORKER, FIRST)

    @property
    def now_ns(self) -> int:
        """The wall clock: at noon the monotonic clock showed 100."""
        return int((NOON_MS / 1_000 + self.now - 100.0) * 1e9)

    def put_gap(self, gap: GapRow) -> None:
        """Take a row."""
        self.rows[gap.gap_id] = gap

    def put_followed(self, interval: Followed) -> None:
        """Take an interval."""
        self.followed[interval.key, interval.source] = interval

    def progress(
        self, at_ms: int, *, base: int = FIRST, source: Source = "live", key: TopicKey = BOOK
    ) -> None:
        """The worker has applied a message."""
        self.now = max(self.now, 100.0 + (at_ms - NOON_MS) / 1_000)
        packed = codec.encode_progress([Progress(*key, source, at_ms, 7, 70)])
        assert self.keeper.on_progress(WORKER, base, packed)

    def report(self, *gaps: BookGap | TradesGap, base: int = FIRST) -> None:
        """The worker reports gaps."""
        rows = [msgspec.to_builtins(gap) for gap in gaps]
        assert self.keeper.on_gaps(WORKER, base, rows, self.now, self.now_ns)

    def down(self, reason: Any = "process_down") -> int:
        """The worker dies."""
        opened = self.keeper.on_down([BOOK], reason, self.now, self.now_ns)
        self.keeper.on_dead(WORKER)
        return opened

    def adopt(self, source: Source = "live", *, base: int = SECOND) -> GapRow | None:
        """The worker starts."""
        self.keeper.on_start(WORKER, base)
        return self.keeper.adopt(BOOK, source, self.now, self.now_ns)

    def update(self) -> None:
        """Time passes."""
        self.keeper.update(self.now, self.now_ns)

    def untrusted_s(self, key: TopicKey = BOOK) -> float:
        """The counter."""
        return self.keeper.untrusted(self.now).get(key, 0.0)


def book_gap(gap_id: int, start_ms: int | None = NOON_MS, **changes: Any) -> BookGap:
    fields: dict[str, Any] = {
        "gap_id": gap_id,
        "category": "linear",
        "symbol": "BTCUSDT",
        "reason": "gap",
        "opened_ts_ns": 1,
        "start_ms": start_ms,
        "update_id_before": 7,
        "sequence_before": 70,
        "received_update_id": None,
        "source": "live",
    }
    return BookGap(**fields | changes)


def ended(gap: BookGap | TradesGap, seconds: float) -> BookGap | TradesGap:
    end_ms = (gap.start_ms or NOON_MS) + int(seconds * 1_000)
    return msgspec.structs.replace(gap, end_ms=end_ms, duration_s=seconds)


def earlier(**changes: Any) -> LedgerState:
    """An earlier run that followed a book until five minutes before noon."""
    before = interval(NOON_MS - 900_000, NOON_MS - 300_000, update_id=5, **changes)
    return LedgerState(1, [], [before], {BOOK: 40.0}, [])


# -- reports -----------------------------------------------------------------------------------


def test_a_reported_gap_is_recorded_with_its_pipeline() -> None:
    world = World()
    gap = book_gap(FIRST + 1)
    world.report(gap)
    world.report(ended(gap, 2.0))
    world.report(ended(gap, 2.0))

    [row] = world.rows.values()
    assert (RUN, "mainnet", "book", "gap", NOON_MS, NOON_MS + 2_000, 2.0, None, False) == (
        row.pipeline,
        row.network,
        row.stream,
        row.reason,
        row.start_ms,
        row.end_ms,
        row.duration_s,
        row.repaired_by,
        row.complete,
    )
    assert 2.0 == world.untrusted_s()


def test_a_gap_of_trades_gets_the_times_of_our_clock() -> None:
    world = World()
    gap = TradesGap(
        gap_id=FIRST + 1,
        category="linear",
        symbol="BTCUSDT",
        reason="disconnected",
        start_ms=NOON_MS,
        source="live",
    )
    world.now += 1
    world.report(gap)
    opened_ns = world.now_ns
    world.now += 2
    world.report(ended(gap, 3.0))

    [row] = world.rows.values()
    assert (opened_ns, world.now_ns) == (row.opened_ts_ns, row.closed_ts_ns)


@pytest.mark.parametrize("gaps", [None, 7, [7], [{}], [{"stream": "book", "gap_id": "x"}]])
def test_an_unusable_report_is_refused(gaps: object) -> None:
    world = World()
    assert not world.keeper.on_gaps(WORKER, FIRST, gaps, world.now, world.now_ns)
    assert {} == world.rows


def test_unusable_progress_is_refused() -> None:
    world = World()
    assert not world.keeper.on_progress(WORKER, FIRST, "text")
    assert world.keeper.on_progress(WORKER, FIRST, b"\xc1")
    assert not world.keeper.update(world.now, world.now_ns)


# -- a worker dies -----------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["process_down", "process_silent"])
def test_a_dead_worker_leaves_one_gap_from_its_last_message_to_the_next(reason: str) -> None:
    world = World()
    world.progress(NOON_MS + 200)
    world.now += 0.5
    assert 1 == world.down(reason)
    assert 0 == world.down(reason)

    [row] = world.rows.values()
    assert (reason, NOON_MS + 200, 7, 70, None) == (
        row.reason,
        row.start_ms,
        row.update_id_before,
        row.sequence_before,
        row.duration_s,
    )
    assert row == world.adopt()
    gap = row.gap()
    assert isinstance(gap, BookGap)
    world.report(ended(gap, 3.0), base=SECOND)
    world.progress(NOON_MS + 3_300, base=SECOND)
    world.update()
    assert [(NOON_MS + 200, NOON_MS + 3_200, reason)] == [
        (row.start_ms, row.end_ms, row.reason) for row in world.rows.values()
    ]


def test_a_worker_that_dies_again_and_again_leaves_one_gap() -> None:
    world = World()
    world.progress(NOON_MS)
    world.down()
    first = world.adopt()
    world.down()

    assert first == world.adopt(base=SECOND + 1)
    assert 1 == len(world.rows)


def test_a_gap_that_was_open_when_the_worker_died_goes_on() -> None:
    world = World()
    world.progress(NOON_MS)
    world.report(book_gap(FIRST + 1, reason="disconnected"))

    assert 0 == world.down()
    row = world.adopt()

    assert row is not None
    assert ("disconnected", FIRST + 1) == (row.reason, row.gap_id)


def test_what_was_still_on_its_way_from_a_dead_worker_is_ignored() -> None:
    world = World()
    world.progress(NOON_MS)
    world.down()
    world.progress(NOON_MS + 50)
    world.report(book_gap(FIRST + 1))
    world.update()

    [row] = world.rows.values()
    assert row.is_open


def test_a_topic_that_was_never_followed_has_no_gap() -> None:
    world = World()
    assert 0 == world.down()


def test_a_report_is_not_overtaken_by_the_progress_before_it() -> None:
    world = World()
    world.progress(NOON_MS)
    world.report(book_gap(FIRST + 1))
    world.update()

    assert world.rows[FIRST + 1].is_open


def test_progress_ends_a_gap_whose_end_was_lost() -> None:
    world = World()
    world.report(book_gap(FIRST + 1))
    world.progress(NOON_MS + 2_500)
    world.update()

    assert (NOON_MS + 2_500, 2.5) == (
        world.rows[FIRST + 1].end_ms,
        world.rows[FIRST + 1].duration_s,
    )


# -- two runs ----------------------------------------------------------------------------------


def test_the_time_between_two_runs_is_a_gap() -> None:
    world = World(earlier())

    row = world.adopt()

    assert row is not None
    assert ("stopped", NOON_MS - 300_000, 5) == (row.reason, row.start_ms, row.update_id_before)
    assert 340.0 == pytest.approx(world.untrusted_s())
    assert row == world.adopt()


def test_a_gap_that_was_open_at_the_end_of_a_run_goes_on() -> None:
    before = open_row(77, NOON_MS - 400_000, reason="disconnected")
    world = World(earlier()._replace(open_gaps=[before]))

    assert before == world.adopt()


def test_simulated_data_does_not_continue_live_data() -> None:
    world = World(earlier())

    assert None is world.adopt("sim")
    world.progress(NOON_MS, base=SECOND, source="sim")
    world.update()

    assert {} == world.rows


def test_a_source_that_is_known_only_by_its_data_is_continued() -> None:
    world = World(earlier(source="sim"))
    assert None is world.adopt("live")
    starting = book_gap(SECOND + 1, None, reason="starting", source=None, update_id_before=None)
    world.report(starting, base=SECOND)
    closed = msgspec.structs.replace(
        starting, source="sim", end_ms=NOON_MS, duration_s=0.4, update_id_after=9
    )
    world.report(closed, base=SECOND)

    [row] = world.rows.values()
    assert ("stopped", NOON_MS - 300_000, NOON_MS, 300.0, 5, 9) == (
        row.reason,
        row.start_ms,
        row.end_ms,
        row.duration_s,
        row.update_id_before,
        row.update_id_after,
    )


def test_what_ends_with_the_pipeline_is_no_gap_of_its_own() -> None:
    world = World()
    world.progress(NOON_MS)
    world.keeper.is_stopping = True
    world.report(book_gap(FIRST + 1, reason="disconnected"))
    world.update()

    assert {} == world.rows
    assert NOON_MS == world.followed[BOOK, "live"].end_ms


def test_a_topic_that_a_new_configuration_lacks_is_not_missed() -> None:
    world = World(earlier())
    world.keeper.topics = {TRADES}

    world.keeper.forget_earlier("live", world.now, world.now_ns)

    assert not world.followed[BOOK, "live"].is_open
    assert None is world.adopt()


# -- subscriptions -----------------------------------------------------------------------------


def test_an_unsubscribed_topic_is_not_missed() -> None:
    world = World()
    world.progress(NOON_MS)
    world.update()
    world.keeper.unfollow({BOOK}, world.now, world.now_ns)
    world.keeper.topics = {TRADES}
    world.progress(NOON_MS + 100)  # sent before it knew
    world.update()

    assert not world.followed[BOOK, "live"].is_open
    assert 0 == world.down()
    assert {} == world.rows


def test_an_open_gap_ends_when_its_topic_is_unsubscribed() -> None:
    world = World()
    world.report(book_gap(FIRST + 1))
    world.now += 4
    world.keeper.unfollow({BOOK}, world.now, world.now_ns)

    assert (None, 4.0) == (world.rows[FIRST + 1].end_ms, world.rows[FIRST + 1].duration_s)


# -- untrusted time ----------------------------------------------------------------------------


def test_untrusted_time_never_decreases() -> None:
    world = World(earlier())
    gap = book_gap(FIRST + 1)
    assert 40.0 == world.untrusted_s()
    world.report(gap)
    world.now += 5
    assert 45.0 == pytest.approx(world.untrusted_s())
    world.report(ended(gap, 4.5))
    assert 45.0 == pytest.approx(world.untrusted_s())
    world.report(book_gap(FIRST + 2, NOON_MS + 5_000))
    world.now += 2
    assert 46.5 == pytest.approx(world.untrusted_s())


def test_a_replay_is_recorded_but_not_continued() -> None:
    world = World()
    world.progress(1_000, source="replay")
    world.update()

    assert {} == world.followed
    world.now += 3
    world.down()
    [row] = world.rows.values()
    assert (1_000, "process_down") == (row.start_ms, row.reason)
    assert world.untrusted_s() < 1
