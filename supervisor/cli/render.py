"""Lines of text that ``check``, ``status`` and ``gaps`` print."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bybit_pipeline.shared.settings.ports import host_port
from bybit_pipeline.supervisor.ledger.rows import GapRow
from bybit_pipeline.supervisor.ledger.summary import DayRow
from bybit_pipeline.supervisor.plan.names import (
    DASHBOARD,
    FORWARDER,
    SIMULATOR,
    exchange_topic,
    role_of,
)
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.source.proxy import proxy_in_force

NONE = "-"
TOPICS_PER_LINE = 4


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the plan: every process with its topics and endpoints."""
    config = plan.config
    proxy = proxy_in_force(plan)
    yield from _columns(
        [
            ["source", _source_text(plan)],
            ["network", config.network],
            *([["proxy", str(proxy)]] if proxy else []),
            ["run_dir", plan.run_dir],
            ["control", plan.control_endpoint],
            ["metrics", config.metrics.endpoint],
            ["keys", plan.keys or "none: this machine only"],
            ["http", _http_url(plan)],
            *([["dashboard", _dashboard_url(plan)]] if config.dashboard.enabled else []),
            *([["patterns", _patterns_text(plan)]] if plan.universe.patterns else []),
        ]
    )
    for process in ("supervisor", *plan.processes):
        yield ""
        yield from _process_lines(plan, process)


def plan_map(plan: Plan) -> dict[str, Any]:
    """Return the plan for programs, under stable names."""
    config = plan.config
    proxy = proxy_in_force(plan)
    return {
        "source": config.source,
        "url": plan.url or None,
        "network": config.network,
        "proxy": str(proxy) if proxy else None,
        "run_dir": plan.run_dir,
        "control": plan.control_endpoint,
        "metrics": config.metrics.endpoint,
        "http": _http_url(plan),
        "dashboard": _dashboard_url(plan) if config.dashboard.enabled else None,
        "patterns": [pattern.name for pattern in plan.universe.patterns],
        "instruments": plan.rest_url or None,
        "processes": [_process_map(plan, process) for process in ("supervisor", *plan.processes)],
    }


_FACTS = ("connects", "feeds", "gathers", "listens", "publishes", "serves")


def _process_map(plan: Plan, process: str) -> dict[str, Any]:
    role = role_of(process)
    topics: list[str] = []
    if role == "connector":
        topics = list(dict.fromkeys(exchange_topic(s) for s in plan.streams_of(process)))
    elif role in ("trades", "orderbook"):
        topics = [a.stream.topic for a in plan.assignments_of(process)]
    facts = dict(_process_facts(plan, process))
    return {
        "process": process,
        "role": role,
        **{label: facts.get(label) for label in _FACTS},
        "topics": topics,
    }


def _patterns_text(plan: Plan) -> str:
    names = " ".join(pattern.name for pattern in plan.universe.patterns)
    where = plan.rest_url or "the simulator"
    return f"{names}: resolved at run time, from the list of {where}"


def _source_text(plan: Plan) -> str:
    if plan.config.source == "auto":
        after_s = plan.config.connector.fallback_after_s
        return f"auto: {plan.url}, or simulated data if unreachable for {after_s:g} s"
    where = plan.url or plan.config.replay.capture or "the embedded simulator"
    return f"{plan.config.source}: {where}"


def _dashboard_url(plan: Plan) -> str:
    return f"http://{host_port(plan.config.dashboard.host, plan.config.dashboard.port)}"


def _http_url(plan: Plan) -> str:
    return f"http://{host_port(plan.config.prometheus.host, plan.config.prometheus.port)}"


def _process_lines(plan: Plan, process: str) -> Iterator[str]:
    yield process
    for label, text in _process_facts(plan, process):
        yield f"  {label:<9} {text}"


def _process_facts(plan: Plan, process: str) -> Iterator[tuple[str, str]]:
    role = role_of(process)
    if role == "connector":
        yield "connects", plan.connector_url(process) or "to the simulator"
        yield "publishes", plan.market_endpoint(process)
        yield "feeds", plan.feed_endpoint(process)
        topics = list(dict.fromkeys(exchange_topic(s) for s in plan.streams_of(process)))
        yield from _topic_facts(topics)
    elif role in ("trades", "orderbook"):
        yield "publishes", plan.metrics_in
        yield from _topic_facts([a.stream.topic for a in plan.assignments_of(process)])
    elif process == FORWARDER:
        yield "gathers", plan.metrics_in
        yield "publishes", plan.config.metrics.endpoint
    elif process == DASHBOARD:
        yield "gathers", plan.config.metrics.endpoint
        yield "serves", _dashboard_url(plan)
    elif process == SIMULATOR:
        yield "serves", plan.config.replay.capture or "a synthetic market"
    else:
        yield "listens", plan.control_endpoint
        yield "serves", _http_url(plan)


def _topic_facts(topics: Sequence[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(topics), TOPICS_PER_LINE):
        label = f"topics {len(topics)}" if start == 0 else ""
        yield label, " ".join(topics[start : start + TOPICS_PER_LINE])
    if not topics:
        yield "topics 0", "idle until something is subscribed"


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield the status of a running pipeline."""
    yield from _columns(
        [
            ["source", feed_text(status)],
            ["ready", "yes" if status["ready"] else "no"],
            ["version", status["version"]],
            ["network", status["network"]],
            ["metrics", status["metrics"]],
            ["http", f"http://{status['http']}"],
            *([["dashboard", status["dashboard"]]] if status.get("dashboard") else []),
            [
                "books",
                ", ".join(f"{n} {state}" for state, n in status["books"].items() if n) or NONE,
            ],
        ]
    )
    for reason in status["reasons"]:
        yield f"  not ready: {reason}"
    if status.get("patterns"):
        yield ""
        yield from _columns([_PATTERN_HEAD, *map(_pattern_row, status["patterns"])])
    yield ""
    yield from _columns([_PROCESS_HEAD, *map(_process_row, status["processes"])])
    if status["connectors"]:
        yield ""
        yield from _columns([_CONNECTOR_HEAD, *map(_connector_row, status["connectors"])])
    for connector in status["connectors"]:
        why = attempt_text(connector, time.time())
        if why:
            detail = connector.get("failure_detail")
            yield f"  {connector['process']}: {why}{f': {detail}' if detail else ''}"
        rejected = [t for t, state in connector["topics"].items() if state == "rejected"]
        reasons = connector.get("rejected", {})
        for topic in rejected:
            yield f"  rejected: {topic} on {connector['process']}: {reasons.get(topic, '')}"


_PATTERN_HEAD = ["PATTERN", "STATE", "SYMBOLS", "AS OF (UTC)", "REASON"]
_PROCESS_HEAD = [
    "PROCESS",
    "STATE",
    "PID",
    "UPTIME",
    "RESTARTS",
    "CPU S",
    "RSS MB",
    "LAG MS",
    "LOST",
]
_CONNECTOR_HEAD = ["CONNECTOR", "LINK", "TOPICS", "RECONNECTS", "PING MS", "URL"]


def _pattern_row(entry: Mapping[str, Any]) -> list[str]:
    resolved_ms = entry["resolved_ts_ms"]
    return [
        entry["pattern"],
        entry["state"],
        str(len(entry["symbols"])),
        NONE if resolved_ms is None else _time_text(resolved_ms)[:-4],
        _text(entry["reason"]),
    ]


def _process_row(process: Mapping[str, Any]) -> list[str]:
    counts, rss = process["counts"], process["rss_bytes"]
    lag_s = counts.get("lag_s")
    return [
        process["process"],
        process["state"],
        _text(process["pid"]),
        duration_text(process["uptime_s"]),
        _text(process["restarts"]),
        _text(process["cpu_seconds"]),
        NONE if rss is None else f"{rss / 2**20:.0f}",
        NONE if lag_s is None else f"{lag_s * 1000:.1f}",
        _text(counts.get("lost")),
    ]


def _connector_row(connector: Mapping[str, Any]) -> list[str]:
    states = list(connector["topics"].values())
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    ping = connector["ping_rtt_ms"]
    return [
        connector["process"],
        "connected" if connector["connected"] else "DOWN",
        ", ".join(f"{number} {state}" for state, number in counts.items()) or NONE,
        _text(connector["reconnects"]),
        NONE if ping is None else f"{ping:.1f}",
        connector["url"],
    ]


def duration_text(seconds: float | None) -> str:
    """Return seconds as ``1:02:03``."""
    return NONE if seconds is None else str(timedelta(seconds=int(seconds)))


def feed_text(status: Mapping[str, Any]) -> str:
    """Return the source for people; ``live`` alone only while data of Bybit arrive."""
    feed = status.get("feed") or {"kind": status["source"], "host": None}
    kind, host = feed["kind"], feed["host"]
    match kind:
        case "live":
            return "live"
        case "sim" | "replay":
            return f"{kind.upper()}: NOT live market data"
        case "custom":
            return f"live, from {host}"
        case "waiting":
            return f"no live data yet from {host}"
        case _:
            return f"no connection to {host}"


def attempt_text(connector: Mapping[str, Any], now_s: float) -> str:
    """Return why a connector has no connection, and when it tries again; empty if it has one."""
    if connector["connected"]:
        return ""
    next_ms = connector.get("next_attempt_ts_ms")
    texts = [connector.get("failure") or ""]
    if next_ms is not None:
        texts.append(f"next attempt in {max(0.0, next_ms / 1000 - now_s):.0f} s")
    return ", ".join(text for text in texts if text)


def _text(value: Any) -> str:
    return NONE if value is None else str(value)


_GAP_HEAD = ["STREAM", "MARKET", "REASON", "FROM (EXCHANGE TIME)", "SECONDS", "BEFORE", "AFTER"]


def gap_lines(gaps: Sequence[GapRow]) -> Iterator[str]:
    """Yield the gaps, one line each; the numbers are update ids of books, sequences of trades."""
    yield from _columns([_GAP_HEAD, *map(_gap_row, gaps)])


_SUMMARY_HEAD = [
    "DAY (UTC)",
    "MARKET",
    "TRADES %",
    "BOOK %",
    "TRADES MISSING S",
    "BOOK MISSING S",
    "SOURCE",
]


def summary_lines(days: Sequence[DayRow]) -> Iterator[str]:
    """Yield the completeness of symbols, one line a day; pipelines are named if there are two."""
    has_pipelines = len({day.pipeline for day in days}) > 1
    head = [*_SUMMARY_HEAD, *(["PIPELINE"] if has_pipelines else [])]
    yield from _columns([head, *(_day_row(day)[: len(head)] for day in days)])


def _day_row(day: DayRow) -> list[str]:
    return [
        day.day,
        f"{day.category}:{day.symbol}",
        _percent_text(day.trades_percent),
        _percent_text(day.book_percent),
        f"{day.trades_missing_s:.3f}",
        f"{day.book_missing_s:.3f}",
        day.source if day.source != "live" else f"live {day.network}",
        day.pipeline,
    ]


def _percent_text(percent: float | None) -> str:
    return NONE if percent is None else f"{percent:.4f}"


def _gap_row(gap: GapRow) -> list[str]:
    numbers = (
        (gap.update_id_before, gap.update_id_after)
        if gap.stream == "book"
        else (gap.sequence_before, gap.sequence_after)
    )
    return [
        gap.stream,
        f"{gap.category}:{gap.symbol}",
        gap.reason,
        NONE if gap.start_ms is None else _time_text(gap.start_ms),
        "open" if gap.duration_s is None else f"{gap.duration_s:.3f}",
        *map(_text, numbers),
    ]


def _time_text(ms: int) -> str:
    """Return milliseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  ".join([*padded, row[-1]]).rstrip()
