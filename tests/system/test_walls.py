"""A scripted market places, refills, eats and pulls walls; the events match exactly."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Start
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline

CONFIG = """
[orderbook]
publish_interval_ms = 20
"""
BOOK = {"do": "book", "mid": 50000, "levels": 100, "size": 1.0, "pulse_ms": 100}
ASK, BID = 50001.0, 49999.0
STORY: list[dict[str, Any]] = [
    {"at_ms": 0, **BOOK},
    {"at_ms": 1000, "do": "place", "side": "ask", "price": ASK, "size": 20},
    {"at_ms": 2000, "do": "feed", "side": "ask", "price": ASK, "size": 20},
    {"at_ms": 3000, "do": "eat", "side": "ask", "price": ASK, "trades": 8},
    {"at_ms": 4500, "do": "place", "side": "bid", "price": BID, "size": 30},
    {"at_ms": 5500, "do": "pull", "side": "bid", "price": BID},
    {"at_ms": 7000, "do": "place", "side": "bid", "price": 49998.0, "size": 40},
    {"at_ms": 8000, "do": "eat", "side": "bid", "price": 49998.0, "size": 10, "trades": 3},
    {"at_ms": 9000, "do": "pull", "side": "bid", "price": 49998.0},
]
TOLD = [
    ("detected", "ask", ASK, 20.0, 0.0, 0.0),
    ("grown", "ask", ASK, 40.0, 0.0, 0.0),
    ("eaten", "ask", ASK, 0.0, 1.0, 0.0),
    ("detected", "bid", BID, 30.0, 0.0, 0.0),
    ("pulled", "bid", BID, 0.0, 0.0, 1.0),
    ("detected", "bid", 49998.0, 40.0, 0.0, 0.0),
    ("pulled", "bid", 49998.0, 0.0, 0.25, 0.75),
]


def test_the_wall_events_match_the_script_with_the_right_ratios(
    start: Start, tmp_path: Path
) -> None:
    script = tmp_path / "walls.jsonl"
    script.write_text("\n".join(json.dumps({"symbol": "BTCUSDT", **step}) for step in STORY))
    exchange = Exchange("--symbols", "BTCUSDT", "--script", str(script))
    try:
        pipeline = start(
            "--source", "live", "--url", exchange.url, "--symbols", "BTCUSDT", config=CONFIG
        )
        events = read_events(pipeline, len(TOLD))
    finally:
        exchange.kill()
    told = [
        (e["event"], e["side"], e["price"], e["size"], e["eaten_ratio"], e["pulled_ratio"])
        for e in events
    ]
    assert told == [pytest.approx(expected) for expected in TOLD]
    assert not any(event["uncertain"] for event in events)
    eaten = events[2]
    assert (eaten["initial_size"], eaten["peak_size"], eaten["traded_size"]) == (20.0, 40.0, 40.0)
    assert eaten["first_seen_ms"] == events[0]["first_seen_ms"]
    assert eaten["age_ms"] == pytest.approx(2000, abs=300)


def read_events(pipeline: Pipeline, count: int) -> list[dict[str, Any]]:
    """Return the first wall events, and all others within two seconds after them."""
    events: list[dict[str, Any]] = []
    last_at_ns = 0
    for message in pipeline.messages():
        if message["kind"] == "density":
            events.append(message)
            last_at_ns = message["publish_ts_ns"]
        elif len(events) >= count and message.get("publish_ts_ns", 0) > last_at_ns + 2e9:
            break
    return events
