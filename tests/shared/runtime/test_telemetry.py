"""Counters as a scraper sees them."""

import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import generate_latest

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.runtime.webserver import CONNECTIONS_MAX


def exposed(telemetry: Telemetry) -> str:
    return generate_latest(telemetry.registry).decode()


def test_a_counter_reads_zero_before_anything_happened() -> None:
    telemetry = Telemetry()
    telemetry.counter("trades_total", "Trades.", process="trades-0")
    assert 'bybit_pipeline_trades_total{process="trades-0"} 0.0' in exposed(telemetry)


def test_labels_distinguish_the_cells_of_a_family() -> None:
    telemetry = Telemetry()
    telemetry.gauge("books", "Books.", state="live").value = 3
    telemetry.gauge("books", "Books.", state="stale").value = 1
    text = exposed(telemetry)
    assert 'bybit_pipeline_books{state="live"} 3.0' in text
    assert 'bybit_pipeline_books{state="stale"} 1.0' in text
    telemetry.remove("books", state="stale")
    assert 'state="stale"' not in exposed(telemetry)


@pytest.mark.parametrize("together", [True, False])
def test_a_histogram_counts_an_observation_at_its_upper_bound(together: bool) -> None:
    telemetry = Telemetry()
    histogram = telemetry.histogram("bus_latency_seconds", "Latency.", (0.1, 1.0), process="p")
    values = (0.05, 0.1, 0.5, 7.0)
    if together:
        histogram.observe_all(values)
    else:
        for value in values:
            histogram.observe(value)
    text = exposed(telemetry)
    assert 'bybit_pipeline_bus_latency_seconds_bucket{le="0.1",process="p"} 2.0' in text
    assert 'bybit_pipeline_bus_latency_seconds_bucket{le="1.0",process="p"} 3.0' in text
    assert 'bybit_pipeline_bus_latency_seconds_bucket{le="+Inf",process="p"} 4.0' in text
    assert 'bybit_pipeline_bus_latency_seconds_count{process="p"} 4.0' in text
    assert 'bybit_pipeline_bus_latency_seconds_sum{process="p"} 7.65' in text


def test_a_read_family_follows_its_source() -> None:
    telemetry = Telemetry()
    prices = {("linear", "BTCUSDT"): 5.0}
    telemetry.gauges("mid_price", "Mid.", ("category", "symbol"), lambda: list(prices.items()))
    sample = 'bybit_pipeline_mid_price{category="linear",symbol="BTCUSDT"}'
    assert f"{sample} 5.0" in exposed(telemetry)
    prices.clear()
    assert sample not in exposed(telemetry)


def test_one_name_cannot_be_two_kinds() -> None:
    telemetry = Telemetry()
    telemetry.counter("trades_total", "Trades.", process="p")
    with pytest.raises(ValueError, match="is a counter"):
        telemetry.gauge("trades_total", "Trades.", process="p")


def test_a_restarted_process_gets_another_port_when_its_port_is_taken() -> None:
    first, second = Telemetry(), Telemetry()
    first.counter("trades_total", "Trades.", process="first")
    port = first.serve("127.0.0.1", 0)
    assert second.serve("127.0.0.1", port) not in (0, port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b'process="first"' in answer.read()


def test_an_exporter_is_read_only() -> None:
    telemetry = Telemetry()
    telemetry.counter("trades_total", "Trades.", process="p").value = 3
    base = f"http://127.0.0.1:{telemetry.serve('127.0.0.1', 0)}"

    codes = {}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        try:
            asked = urllib.request.Request(f"{base}/metrics", method=method)
            with urllib.request.urlopen(asked, timeout=5) as answer:
                codes[method] = answer.status
        except urllib.error.HTTPError as error:
            with error:
                codes[method] = error.code

    assert {
        "GET": 200,
        "HEAD": 200,
        "POST": 405,
        "PUT": 405,
        "DELETE": 405,
        "OPTIONS": 405,
    } == codes
    with urllib.request.urlopen(f"{base}/metrics", timeout=5) as answer:
        assert b'trades_total{process="p"} 3.0' in answer.read()


def test_idle_connections_to_an_exporter_are_bounded() -> None:
    port = Telemetry().serve("127.0.0.1", 0)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS_MAX)]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one_more:
        assert b"" == one_more.recv(1)
    for connection in idle:
        connection.close()
