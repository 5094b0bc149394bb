"""The ledger of a pipeline and its plan: specs, subscriptions, answers, counters."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.specs import Assignment, OrderbookSpec
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.gaps import BookGap
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.supervisor.ledger import writer as writer_module
from bybit_pipeline.supervisor.ledger.ledger import PipelineLedger
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.plan.process_specs import make_spec
from tests.clock import FakeClock

WORKER = "orderbook-0"
START_S = 1_700_000_000.0


class World:
    """One run of a pipeline after another in the same directories."""

    def __init__(self, directory: Path) -> None:
        self.run_dir = directory / "run"
        self.run_dir.mkdir()
        self.state_dir = directory / "state"
        self.clock = FakeClock(START_S)
        self.asked = 0
        self.start()

    def plan(self, *symbols: str) -> Plan:
        """A plan for these symbols."""
        tables = {"state_dir": str(self.state_dir), "market": [{"symbols": list(symbols)}]}
        return make_plan(make_config({"source": "live", **tables}), run_dir=str(self.run_dir))

    def start(self) -> None:
        """Start a run."""
        self.telemetry = Telemetry()
        self.ledger = PipelineLedger(
            self.plan("BTCUSDT", "ETHUSDT"), self.clock, self.telemetry, request_gaps=self.ask
        )

    def ask(self) -> None:
        """Count a request for all gaps."""
        self.asked += 1

    def spawn(self) -> OrderbookSpec:
        """The completed spec of the orderbook worker."""
        spec = make_spec(self.plan("BTCUSDT", "ETHUSDT"), WORKER)
        assert isinstance(spec, OrderbookSpec)
        self.ledger.prepare(spec)
        self.base = spec.last_gap_id
        return spec

    def progress(self, *symbols: str) -> int:
        """The worker has applied a message of each symbol now; return its time."""
        now_ms = self.clock.time_ns() // 1_000_000
        topics = [Progress("book", "linear", symbol, "live", now_ms) for symbol in symbols]
        message = {"base": self.base, "topics": codec.encode_progress(topics)}
        assert self.ledger.on_progress(WORKER, message)
        return now_ms

    def gaps(self) -> dict[str, Any]:
        """Reason and start of the newest gap, by symbol."""
        rows = self.ledger.answer()["gaps"]
        return {row["symbol"]: (row["reason"], row["start_ms"]) for row in rows}

    def sample(self, name: str, **labels: str) -> float | None:
        """A sample of a counter."""
        return self.telemetry.registry.get_sample_value(f"bybit_pipeline_{name}", labels)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.ledger.close()


def gap_of(assignment: Assignment) -> tuple[str, int | None] | None:
    gap = assignment.gap
    assert gap is None or isinstance(gap, BookGap)
    return None if gap is None else (gap.reason, gap.start_ms)


def test_every_process_gets_a_number_of_its_own(world: World) -> None:
    assert 0 < world.spawn().last_gap_id < world.spawn().last_gap_id


def test_a_restarted_worker_continues_the_gaps_of_its_own_streams(world: World) -> None:
    world.spawn()
    at_ms = world.progress("BTCUSDT", "ETHUSDT")
    world.clock.now_s += 1
    world.ledger.on_down(WORKER, "process_silent")

    continued = {
        (each.stream.kind, each.stream.symbol): gap_of(each) for each in world.spawn().assignments
    }

    silent = ("process_silent", at_ms)
    assert continued == {
        ("book", "BTCUSDT"): silent,
        ("book", "ETHUSDT"): silent,
        ("trade", "BTCUSDT"): None,
        ("trade", "ETHUSDT"): None,
    }


def test_the_next_run_continues_where_an_orderly_end_left(world: World) -> None:
    world.spawn()
    at_ms = world.progress("BTCUSDT")
    world.ledger.stop()
    world.ledger.close()
    world.clock.now_s += 60
    world.start()

    stopped = [gap_of(each) for each in world.spawn().assignments if each.gap]

    assert [("stopped", at_ms)] == stopped
    labels = {"category": "linear", "symbol": "BTCUSDT", "kind": "book"}
    assert pytest.approx(60) == world.sample("untrusted_seconds_total", **labels)


def test_the_next_run_continues_where_a_kill_left(world: World) -> None:
    world.spawn()
    world.progress("BTCUSDT")
    world.ledger.on_tick()
    world.ledger._writer.close(within_s=5)  # what a kill would leave
    world.clock.now_s += 0.4
    at_ms = world.progress("BTCUSDT")
    world.ledger.on_tick()
    world.start()

    assert [("stopped", at_ms)] == [gap_of(a) for a in world.spawn().assignments if a.gap]


def test_an_unsubscribed_symbol_is_not_missed(world: World) -> None:
    world.spawn()
    world.progress("BTCUSDT", "ETHUSDT")
    world.ledger.change_plan(world.plan("BTCUSDT"))
    world.ledger.on_down(WORKER, "process_down")

    assert {"BTCUSDT"} == world.gaps().keys()


def test_a_symbol_that_left_the_configuration_is_not_missed_later(world: World) -> None:
    world.spawn()
    world.progress("ETHUSDT")
    world.ledger.close()
    world.start()
    world.ledger.change_plan(world.plan("BTCUSDT"))
    world.ledger.on_tick()
    world.ledger.close()
    world.start()

    assert [] == [each for each in world.spawn().assignments if each.gap]


def test_workers_are_asked_again_once_lost_rows_can_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ledger._writer.rows_lost = 3
    for _ in range(2):
        world.clock.now_s += 1
        world.ledger.on_tick()

    assert 1 == world.asked
    assert 3 == world.sample("ledger_rows_lost_total")


def test_the_completeness_of_the_day_is_exported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.spawn()
    world.progress("BTCUSDT")
    world.ledger.on_tick()
    world.clock.now_s += 100
    world.progress("BTCUSDT")
    world.ledger.close()
    world.start()
    monkeypatch.setattr(writer_module, "FOLLOWED_S", 0.05)
    world.ledger._summarize(None)  # type: ignore[arg-type]

    labels = {"category": "linear", "symbol": "BTCUSDT", "kind": "book"}
    assert 1.0 == world.sample("completeness_ratio", **labels)
    assert ["BTCUSDT"] == [row["symbol"] for row in world.ledger.answer()["today"]]
