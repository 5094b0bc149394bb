"""Probing the exchange, over real websockets."""

import itertools
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from bybit_pipeline.supervisor.source.probe import Probe, Prober, growing_pauses, is_answered
from tests.shared.network.exits import ConnectProxy, listener, stays_mute

SPOT = '{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}'
OPTION = '{"args":["1672916271846"],"op":"pong"}'


@contextmanager
def exchange(*answers: str, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a websocket server that answers the first message with these."""

    def handle(connection: ServerConnection) -> None:
        assert '{"op":"ping"}' == connection.recv()
        for answer in answers:
            connection.send(answer)
        for _ in connection:
            pass

    with serve(handle, "127.0.0.1", 0, ssl=tls) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/v5/public/linear"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("pong", [SPOT, OPTION])
def test_a_pong_of_any_category_is_an_answer(pong: str) -> None:
    with exchange(pong) as url:
        assert is_answered(url)


def test_other_messages_before_the_pong_do_not_matter() -> None:
    with exchange('{"topic":"x"}', "not json", SPOT) as url:
        assert is_answered(url)


def test_an_open_socket_without_a_pong_is_no_answer() -> None:
    with exchange('{"topic":"x"}') as url:
        assert not is_answered(url, timeout_s=0.2)


def test_an_exchange_with_an_untrusted_certificate_is_no_answer(
    certificate: tuple[Path, Path],
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)

    def is_trusted(answered: bool) -> bool:
        with exchange(SPOT, tls=tls) as url:
            return is_answered(url.replace("ws://127.0.0.1", "wss://localhost")) is answered

    assert is_trusted(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert is_trusted(True)  # so only the certificate was wrong


def test_a_server_without_websocket_is_no_answer() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        assert not is_answered(url, timeout_s=0.2)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/", "ws://no.such.host.invalid/", "nonsense"])
def test_an_unreachable_address_is_no_answer(url: str) -> None:
    assert not is_answered(url, timeout_s=0.5)


def test_the_prober_sets_its_wakeup_when_the_exchange_answers() -> None:
    with exchange(SPOT) as url:
        prober = Prober(pause_initial_s=0.01, pause_max_s=0.01)
        prober.start(url)
        readable, _, _ = select.select([prober.wakeup], [], [], 5.0)
        prober.close()

    assert [prober.wakeup] == readable
    assert 1 == prober.attempts


def test_the_prober_stops_at_once() -> None:
    prober = Prober(pause_initial_s=60.0, pause_max_s=60.0)
    prober.start("ws://127.0.0.1:1/")

    _timed(prober.close)

    assert 0 == prober.attempts


def _timed(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(2.0)
    assert not thread.is_alive()


def test_pauses_grow_to_the_longest_one() -> None:
    pauses = list(itertools.islice(growing_pauses(5.0, 60.0), 30))

    assert 5.0 == pauses[0]
    assert pauses == sorted(pauses)
    assert [60.0] * 10 == pauses[-10:]
    assert sum(pauses[:6]) < 60.0


# -- data and proxies --------------------------------------------------------------------------


BOOK = '{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1,"data":{}}'


@pytest.mark.parametrize(("answers", "expected"), [((SPOT, BOOK), True), ((SPOT,), False)])
def test_with_topics_only_data_are_an_answer(answers: tuple[str, ...], expected: bool) -> None:
    with exchange(*answers) as url:
        assert expected is Probe(url, ["orderbook.50.BTCUSDT"], timeout_s=0.5).run()


def test_it_goes_through_the_proxy_as_the_connector_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with exchange(SPOT) as url:
        proxy = ConnectProxy(int(url.split(":")[2].split("/")[0]))
        with listener(proxy) as port:
            there = "ws://stream.invalid/v5/public/linear"
            assert is_answered(there, proxy=f"http://127.0.0.1:{port}")
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            assert is_answered(there)
            assert not is_answered(there, proxy="none")
    assert ["CONNECT stream.invalid:80 HTTP/1.1"] * 2 == proxy.requests


def test_a_running_attempt_is_aborted_at_the_end() -> None:
    with listener(stays_mute) as port:
        prober = Prober(pause_initial_s=0.001, pause_max_s=0.001)
        prober.start(f"ws://127.0.0.1:{port}/")
        deadline = time.monotonic() + 10.0
        while not prober.attempts and time.monotonic() < deadline:
            time.sleep(0.002)
        _timed(prober.close)
    assert not [thread for thread in threading.enumerate() if thread.name == "probe"]
