"""Lines that ``check`` and ``status`` print."""

from typing import Any

import pytest

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.cli.render import duration_text, plan_lines, status_lines
from bybit_pipeline.supervisor.plan.plan import make_plan


def status(**changes: Any) -> dict[str, Any]:
    """The status of a small pipeline."""
    processes = [
        {
            "process": "trades-0",
            "state": "up",
            "pid": 12,
            "uptime_s": 3725.9,
            "restarts": 1,
            "cpu_seconds": 1.5,
            "rss_bytes": 36 * 2**20,
            "counts": {"lost": 3, "lag_s": 0.0012},
        },
        {
            "process": "forwarder",
            "state": "restarting",
            "pid": None,
            "uptime_s": None,
            "restarts": 2,
            "cpu_seconds": None,
            "rss_bytes": None,
            "counts": {},
        },
    ]
    connectors = [
        {
            "process": "connector-linear-0",
            "url": "ws://h/linear",
            "connected": True,
            "reconnects": 0,
            "ping_rtt_ms": None,
            "rejected": {"publicTrade.X": "no such topic"},
            "topics": {"publicTrade.X": "rejected", "orderbook.50.Y": "delivering"},
        },
    ]
    return {
        "source": "live",
        "ready": True,
        "reasons": [],
        "version": "1",
        "network": "mainnet",
        "metrics": "tcp://m",
        "http": "h:1",
        "books": {"live": 2, "stale": 0},
        "processes": processes,
        "connectors": connectors,
    } | changes


def test_a_process_is_one_line_with_dashes_for_unknown_values() -> None:
    lines = [line.split() for line in status_lines(status())]

    assert ["trades-0", "up", "12", "1:02:05", "1", "1.5", "36", "1.2", "3"] in lines
    assert ["forwarder", "restarting", "-", "-", "2", "-", "-", "-", "-"] in lines


def test_rejected_topics_are_named_with_the_reason() -> None:
    assert "  rejected: publicTrade.X on connector-linear-0: no such topic" in list(
        status_lines(status())
    )


@pytest.mark.parametrize("source", ["sim", "replay"])
def test_a_source_that_is_not_live_is_loud(source: str) -> None:
    first, *_ = status_lines(status(source=source))

    assert f"source   {source.upper()}: NOT live market data" == first


def test_reasons_are_listed_when_it_is_not_ready() -> None:
    lines = list(status_lines(status(ready=False, reasons=["forwarder: restarting"])))

    assert "ready    no" in lines
    assert "  not ready: forwarder: restarting" in lines


def test_patterns_are_shown_with_their_number_of_symbols() -> None:
    shared = {"resolved_ts_ms": 1_735_809_771_618, "symbols": ["AUSDT", "BUSDT"]}
    patterns = [
        {"pattern": "linear:*USDT", "state": "resolved", "reason": None, **shared},
        {
            "pattern": "spot:top:5:turnover",
            "state": "unresolved",
            "reason": "HTTP 403",
            "resolved_ts_ms": None,
            "symbols": [],
        },
    ]
    lines = [line.split() for line in status_lines(status(patterns=patterns))]

    assert ["linear:*USDT", "resolved", "2", "2025-01-02", "09:22:51", "-"] in lines
    assert ["spot:top:5:turnover", "unresolved", "0", "-", "HTTP", "403"] in lines


def test_the_plan_names_the_source_of_the_instruments() -> None:
    config = make_config({"market": [{"symbols": ["*USDT", "top:5:turnover"]}]})
    text = "\n".join(plan_lines(make_plan(config, run_dir="/run/x")))

    assert (
        "patterns  linear:*USDT linear:top:5:turnover: resolved at run time, from the list "
        "of https://api.bybit.com"
    ) in text


def test_columns_are_aligned() -> None:
    lines = list(status_lines(status()))
    head = next(line for line in lines if line.startswith("PROCESS"))
    row = next(line for line in lines if line.startswith("trades-0"))

    assert head.index("STATE") == row.index("up")
    assert head.index("PID") == row.index("12")


def test_the_plan_mentions_the_fallback_of_auto() -> None:
    lines = list(plan_lines(make_plan(make_config({}), run_dir="/run/x")))

    assert lines[0].startswith(
        "source   auto: wss://stream.bybit.com/v5/public/{category}, or simu"
    )


def test_the_plan_names_the_capture_that_is_played() -> None:
    config = make_config({"source": "replay", "replay": {"capture": "/c.jsonl"}})
    text = "\n".join(plan_lines(make_plan(config, run_dir="/run/x")))

    assert "source   replay: /c.jsonl" in text
    assert "connects  to the simulator" in text


def test_an_idle_worker_is_shown_as_idle() -> None:
    config = make_config({"workers": {"trades": 3}, "market": [{"symbols": ["AUSDT"]}]})

    assert "  topics 0  idle until something is subscribed" in list(
        plan_lines(make_plan(config, run_dir="/run/x"))
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.9, "0:00:00"), (59.9, "0:00:59"), (90061.0, "1 day, 1:01:01")],
)
def test_durations_are_readable(seconds: float | None, text: str) -> None:
    assert text == duration_text(seconds)
