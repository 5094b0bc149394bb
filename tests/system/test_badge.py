"""What the status says about the source of the data, with real processes."""

import socket
import time

from tests.system.conftest import Start
from tests.system.exchange import Exchange
from tests.system.pipeline import until


def test_our_own_simulator_is_recognized_and_a_live_badge_never_shown(start: Start) -> None:
    exchange = Exchange("--symbols", "BTCUSDT")
    try:
        pipeline = start("--source", "live", "--url", exchange.url, "--symbols", "BTCUSDT")
        kinds = set()

        def is_ready() -> bool:
            status = pipeline.status()
            kinds.add(status["feed"]["kind"])
            return bool(status["ready"])

        until(is_ready, "ready")
        assert kinds <= {"waiting", "sim"}
        assert "sim" == pipeline.status()["feed"]["kind"]
        assert "SIM: NOT live market data" in pipeline.command("status").stdout
    finally:
        exchange.kill()


def test_without_a_connection_the_reason_and_the_next_attempt_are_shown(start: Start) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    url = f"ws://{address}/v5/public/linear"
    pipeline = start("--source", "live", "--url", url, "--symbols", "BTCUSDT")

    def failed() -> object:
        [entry] = pipeline.status()["connectors"]
        return entry["failure"] and entry["next_attempt_ts_ms"]

    next_ms = until(failed, "the failure")
    assert next_ms / 1000 > time.time() - 1
    assert {"kind": "waiting", "host": address} == pipeline.status()["feed"]
    text = pipeline.command("status").stdout
    assert f"no live data yet from {address}" in text
    assert "connector-linear-0: refused" in text
