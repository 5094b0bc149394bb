"""A real supervisor that changes between the exchange and the simulator."""

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from tests.supervisor.conftest import Start
from tests.supervisor.source.test_instruments_client import server


def _serve_data(connection: ServerConnection) -> None:
    for message in connection:
        request = json.loads(message)
        if request.get("op") == "ping":
            connection.send('{"success":true,"ret_msg":"pong","op":"ping"}')
        for topic in request.get("args", ()):
            connection.send(json.dumps({"topic": topic, "data": {}}))


def _answer_pings(connection: ServerConnection) -> None:
    for message in connection:
        if json.loads(message).get("op") == "ping":
            connection.send('{"success":true,"ret_msg":"pong","op":"ping"}')


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port without a listener, bound so that no other program takes it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


AUTO = {"connector": {"fallback_after_s": 0.5, "backoff_initial_s": 0.1, "backoff_max_s": 0.2}}


def test_auto_falls_back_at_the_start_and_changes_over_when_the_exchange_answers(
    start_pipeline: Start, closed_port: int
) -> None:
    url = f"ws://127.0.0.1:{closed_port}/v5/public/{{category}}"
    pipeline = start_pipeline(
        tables={"source": "auto", "url": url, **AUTO},
        behaviour={"simulator": {"websocket": "ws://127.0.0.1:1/v5/public/{category}"}},
    )
    pipeline.wait_up()
    assert "live" == pipeline.status()["source"]

    pipeline.wait_for(lambda: pipeline.status()["source"] == "sim")
    [command] = pipeline.wait_for_commands("connector-linear-0")
    assert {
        "type": "source",
        "source": "sim",
        "url": "ws://127.0.0.1:1/v5/public/linear",
    } == command
    assert "SIMULATED" in pipeline.log.read_text()
    assert 'source_info{source="sim"} 1.0' in pipeline.page("/metrics")[1]

    with _served(closed_port, _serve_data):
        pipeline.wait_for(lambda: pipeline.status()["source"] == "live")
        [_, command] = pipeline.wait_for_commands("connector-linear-0", 2)
        live_url = url.replace("{category}", "linear")
        assert {"type": "source", "source": "live", "url": live_url} == command
        pipeline.wait_for(lambda: not pipeline.process_entry("simulator"))
        assert "live" == json.loads((pipeline.run_dir / "endpoints.json").read_text())["source"]
    assert 0 == pipeline.stop()


def test_an_exchange_that_only_answers_pings_does_not_replace_the_simulator(
    start_pipeline: Start, closed_port: int
) -> None:
    url = f"ws://127.0.0.1:{closed_port}/v5/public/{{category}}"
    pings: list[str] = []

    def answer(connection: ServerConnection) -> None:
        pings.append("connected")
        _answer_pings(connection)

    pipeline = start_pipeline(
        tables={"source": "auto", "url": url, **AUTO},
        behaviour={"simulator": {"websocket": "ws://127.0.0.1:1/v5/public/{category}"}},
    )
    pipeline.wait_up()
    pipeline.wait_for(lambda: pipeline.status()["source"] == "sim")
    with _served(closed_port, answer):
        pipeline.wait_for(lambda: len(pings) >= 2)
        assert "sim" == pipeline.status()["source"]
    assert 1 == len(pipeline.commands("connector-linear-0"))
    assert 0 == pipeline.stop()


def test_auto_does_not_fall_back_for_removed_patterns(start_pipeline: Start) -> None:
    """The last pattern is removed while the request for its list fails."""
    connections = itertools.count(1)
    is_requested_again, is_removed = threading.Event(), threading.Event()

    def refuse(connection: socket.socket) -> None:
        if next(connections) == 3:  # the list, the websocket, then the list again
            is_requested_again.set()
            is_removed.wait(10)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    with server(refuse) as url:
        settings = {**AUTO["connector"], "fallback_after_s": 0.05}
        pipeline = start_pipeline(
            tables={
                "source": "auto",
                "url": url.replace("http", "ws"),
                "connector": settings,
                "market": [{"symbols": ["*USDT"]}],
            },
        )
        pipeline.wait_up()
        pipeline.wait_for(is_requested_again.is_set)

        pipeline.ask("unsubscribe", markets=["linear:*USDT"])
        is_removed.set()

        twice = 'instrument_lists_total{result="status"} 2.0'
        pipeline.wait_for(lambda: twice in pipeline.page("/metrics")[1])
        pipeline.ask("subscribe", markets=["linear:BTCUSDT"])
        pipeline.wait_for(lambda: pipeline.process_entry("connector-linear-0").get("pid"))
        assert 0 == pipeline.stop()


def test_auto_never_falls_back_after_a_live_message(start_pipeline: Start) -> None:
    pipeline = start_pipeline(
        tables={"source": "auto", "url": "ws://127.0.0.1:1/{category}", **AUTO},
        behaviour={"connector-linear-0": {"status": {"live_since_ts_ms": 1}}},
    )
    pipeline.wait_up()
    uptime_s = pipeline.process_entry("connector-linear-0")["uptime_s"]

    pipeline.wait_for(
        lambda: pipeline.process_entry("connector-linear-0")["uptime_s"] > uptime_s + 1.0
    )
    assert "live" == pipeline.status()["source"]
    assert not pipeline.process_entry("simulator")


def test_connectors_wait_for_the_address_of_the_simulator(start_pipeline: Start) -> None:
    pipeline = start_pipeline(
        tables={"source": "sim"},
        behaviour={"simulator": {"websocket": "ws://127.0.0.1:1/v5/public/{category}"}},
    )
    pipeline.wait_up()

    [connector] = pipeline.status()["connectors"]
    assert "ws://127.0.0.1:1/v5/public/linear" == connector["url"]
    assert [] == pipeline.commands("connector-linear-0")


def _served(port: int, handle: Callable[[ServerConnection], None]) -> Server:
    return _Serving(serve(handle, "127.0.0.1", port))  # type: ignore[return-value]


class _Serving:
    """A websocket server in a thread, for a ``with`` block."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.serve_forever)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
