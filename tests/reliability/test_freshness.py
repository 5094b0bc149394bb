"""The measurement of freshness: its judgement, and a short form of ``scripts/frozen``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.freshness.bench import Sample
from scripts.freshness.faults import VIEWS
from scripts.freshness.judge import Claim, Judge, Verdict
from scripts.freshness.messages import FreshnessCheck
from scripts.freshness.report import summarize

FAULT_AT = 100.0
TOPIC = "trades.linear.BTCUSDT"
KEY = ("subscriber", TOPIC)
READY = ("readyz", "readyz")


def judge_of(*claims: tuple[float, Claim], trusts_alive: bool = True) -> Judge:
    """A judge that has seen a live claim before the fault, and these afterwards."""
    judge = Judge()
    judge.see(*KEY, Claim(True, 99.9), now=99.9)
    judge.see(*READY, Claim(True), now=99.9)
    judge.begin([KEY, READY], now=FAULT_AT, trusts_alive=trusts_alive)
    for now, claim in claims:
        judge.see(*KEY, claim, now=now)
    return judge


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([], Verdict(9.0, True, 0.0)),
        ([(100.2, Claim(False, 99.9))], Verdict(0.2, False, 0.0)),
        ([(100.2, Claim(True, 99.9)), (100.7, Claim(True, 100.6))], Verdict(0.7, False, 0.0)),
        ([(100.2, Claim(False)), (103.0, Claim(True, 99.9))], Verdict(9.0, True, 0.0)),
        (
            [(100.2, Claim(False)), (103.0, Claim(True, 99.9)), (103.5, Claim(False))],
            Verdict(3.5, False, 0.0),
        ),
    ],
    ids=["not noticed", "stale", "new data", "old data again", "old data for a while"],
)
def test_a_live_claim_is_frozen_while_its_data_are_not_newer_than_the_fault(
    claims: list[tuple[float, Claim]], expected: Verdict
) -> None:
    verdict = judge_of(*claims).end("subscriber", now=109.0)

    assert expected == pytest.approx(verdict)


def test_trades_are_current_without_a_new_one_if_the_connection_is_alive() -> None:
    """Not if a topic was muted, nor if the sign of life is old or older than the fault."""
    for alive_at, trusts_alive, is_frozen in (
        (102.9, True, False),
        (102.9, False, True),
        (100.5, True, True),
        (99.9, True, True),
    ):
        stale, live = (100.1, Claim(False)), (103.0, Claim(True, 99.9, alive_at))
        judge = judge_of(stale, live, trusts_alive=trusts_alive)
        assert is_frozen == judge.is_frozen(["subscriber"])


def test_data_that_are_live_after_the_fault_must_not_be_old() -> None:
    judge = judge_of((100.1, Claim(False)))
    judge.lift()

    judge.see(*KEY, Claim(True, 100.5), now=103.0)

    assert pytest.approx(2.5) == judge.end("subscriber", now=103.0).returned_s


def test_readiness_is_right_once_everything_is_current_again() -> None:
    judge = judge_of((100.6, Claim(True, 100.5)))

    verdict = judge.end("readyz", now=109.0)

    assert pytest.approx((0.6, False, 0.0)) == verdict


def test_one_repetition_decides_about_a_limit() -> None:
    """That is one that was noticed late or not at all, or after which old data were live."""
    good = [Sample("trades-killed", "page", seconds) for seconds in (0.1, 0.2, 0.3)]
    for more, is_good in (
        ([], True),
        ([Sample("trades-killed", "page", 0.4)], False),
        ([Sample("trades-killed", "page", 0.2, is_open=True)], False),
        ([Sample("trades-killed", "page", 0.2, returned_s=2.1)], False),
    ):
        (row,) = summarize(good + more)
        assert is_good == row.is_good
        assert pytest.approx(max(s.frozen_s for s in good + more)) == row.worst_s


def test_every_view_notices_a_killed_worker(tmp_path: Path) -> None:
    """A short form of ``scripts/frozen``."""
    file = tmp_path / "rows.json"
    options = ["--repeat", "1", "--fault", "orderbook-killed", "--json", str(file)]

    subprocess.run([sys.executable, "-m", "scripts.freshness", *options], check=False, timeout=100)

    rows = {row["view"]: row for row in json.loads(file.read_text())}
    assert set(VIEWS) == set(rows)
    assert [] == [view for view, row in rows.items() if row["unnoticed"]]
    within = [view for view in ("subscriber", "client", "readyz") if rows[view]["is_good"]]
    assert ["subscriber", "client", "readyz"] == within


# -- every message -------------------------------------------------------------------------------


def message(published_s: float, **fields: Any) -> dict[str, Any]:
    """A message of a live book, with data of 0.1 s before."""
    times = {"publish_ts_ns": int(published_s * 1e9), "recv_ts_ns": int((published_s - 0.1) * 1e9)}
    head = {"kind": "orderbook", "state": "live", "process": "orderbook-0"}
    return head | times | fields


@pytest.mark.parametrize(
    ("fields", "is_wrong"),
    [
        ({}, False),
        ({"recv_ts_ns": int(97.5e9)}, True),
        ({"recv_ts_ns": int(97.5e9), "alive_ts_ns": int(99.0e9)}, False),
        ({"recv_ts_ns": int(97.5e9), "alive_ts_ns": int(97.9e9)}, True),
        ({"recv_ts_ns": int(97.5e9), "state": "stale"}, False),
        ({"recv_ts_ns": None, "kind": "trades", "state": "warming"}, True),
        ({"recv_ts_ns": None, "state": "syncing"}, False),
    ],
)
def test_a_live_message_has_new_data_or_a_live_connection(
    fields: dict[str, Any], is_wrong: bool
) -> None:
    check = FreshnessCheck()

    check.take(TOPIC, message(100.0, **fields))

    assert is_wrong == bool(check.wrong)


def test_every_topic_is_published_once_per_second_while_its_worker_runs() -> None:
    """The time in which a worker is stopped does not count."""
    check = FreshnessCheck()
    for published_s in (100.0, 101.2, 102.6):
        check.take("orderbook.linear.BTCUSDT", message(published_s))
    check.excuse("orderbook-0", 105.0)
    check.take("orderbook.linear.BTCUSDT", message(106.0))
    assert [] == check.wrong

    check.take("trades.linear.BTCUSDT", message(107.6, kind="trades", process="trades-0"))
    check.check()

    assert ["orderbook.linear.BTCUSDT not published for 1.60 s"] == check.wrong
