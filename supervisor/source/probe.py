"""
The probe: asks an unreachable exchange whether it serves data again.

A thread opens a websocket in the way of the connectors, subscribes what they subscribe and waits
for data: a pong proves a socket, but not that anything comes over it. It repeats this with growing
pauses until data arrive, or until it is stopped.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
import structlog
import websocket

from bybit_pipeline.shared.network.dialer import Dialer
from bybit_pipeline.shared.network.handshake import NETWORK_ERRORS, retry_after_s, upgrade
from bybit_pipeline.shared.runtime.wakeup import Wakeup

log = structlog.get_logger()

ANSWER_S = 5.0
"""Time limit of the handshake, and again of the answer."""
CLOSE_S = 0.1
GROWTH = 1.25
"""
Growth of the pauses.

Short ones at first, so that a short outage at the start costs little; long ones later, to save the
exchange useless requests.
"""


class Probe:
    """
    One question to an exchange. Any thread may abort it.

    Args:
        url: Websocket URL.
        topics: Topics of the exchange of which one must deliver data; without any, a pong is
            enough.
        proxy: ``connector.proxy``.
        timeout_s: Time limit of the handshake, and again of the answer.

    Attributes:
        retry_after_s: Pause that the exchange asked for when it refused the connection.

    Raises:
        ValueError: If ``url`` is not an address.
    """

    def __init__(
        self,
        url: str,
        topics: Sequence[str] = (),
        *,
        proxy: str = "",
        timeout_s: float = ANSWER_S,
    ) -> None:
        self.retry_after_s = 0.0
        self._url = url
        self._topics = topics
        self._timeout_s = timeout_s
        self._dialer = Dialer(url, proxy=proxy)
        self._websocket = websocket.WebSocket()

    def run(self) -> bool:
        """True if the exchange answers."""
        try:
            self._dialer.open(
                self._timeout_s, lambda sock: upgrade(self._websocket, self._url, sock)
            )
            return self._is_answered()
        except NETWORK_ERRORS as error:
            self.retry_after_s = retry_after_s(error, time.time())
            log.debug("exchange does not answer", url=self._url, error=str(error)[:200])
            return False
        finally:
            if self._websocket.connected:
                with suppress(*NETWORK_ERRORS):
                    self._websocket.send_close()
            self._dialer.close()

    def abort(self) -> None:
        """Let ``run`` return False now."""
        self._dialer.abort()

    def _is_answered(self) -> bool:
        client, is_answer = self._websocket, _is_data if self._topics else _is_pong
        client.send('{"op":"ping"}')
        for topic in self._topics:  # each alone: one bad topic would make all of them fail
            client.send(msgspec.json.encode({"op": "subscribe", "args": [topic]}).decode())
        deadline = time.monotonic() + self._timeout_s
        while (left := deadline - time.monotonic()) > 0:
            client.settimeout(left)
            if is_answer(_decoded(client.recv())):
                return True
        return False


class Prober:
    """
    Probes one address and wakes the poll loop when it answers.

    Args:
        pause_initial_s: First pause between attempts.
        pause_max_s: Longest pause.
        proxy: ``connector.proxy``.

    Attributes:
        wakeup: Set when the exchange has answered; ``start`` may be called again then.
        attempts: Attempts so far.
    """

    def __init__(self, *, pause_initial_s: float, pause_max_s: float, proxy: str = "") -> None:
        self.wakeup = Wakeup()
        self.attempts = 0
        self._pauses = growing_pauses(pause_initial_s, pause_max_s)
        self._proxy = proxy
        self._stopping = threading.Event()
        self._probe: Probe | None = None
        self._thread: threading.Thread | None = None

    def start(self, url: str, topics: Sequence[str] = ()) -> None:
        """Start probing a websocket URL; the first attempt follows the next pause."""
        self._thread = threading.Thread(
            target=self._run, args=(url, topics), name="probe", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, also in the middle of an attempt."""
        self._stopping.set()
        if (probe := self._probe) is not None:
            probe.abort()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self.wakeup.close()

    def _run(self, url: str, topics: Sequence[str]) -> None:
        asked_s = 0.0
        while not self._stopping.wait(max(next(self._pauses), asked_s)):
            self.attempts += 1
            self._probe = probe = Probe(url, topics, proxy=self._proxy)
            if self._stopping.is_set():
                return
            if probe.run():
                self.wakeup.set()
                return
            asked_s = probe.retry_after_s


def growing_pauses(initial_s: float, maximum_s: float) -> Iterator[float]:
    """Pauses in seconds, growing to the longest one, which repeats without end."""
    pause = initial_s
    while True:
        yield pause
        pause = min(pause * GROWTH, maximum_s)


def is_answered(url: str, *, proxy: str = "", timeout_s: float = ANSWER_S) -> bool:
    """True if a websocket opens there and answers ``{"op":"ping"}`` as Bybit does."""
    try:
        return Probe(url, proxy=proxy, timeout_s=timeout_s).run()
    except ValueError as error:
        log.debug("exchange cannot be asked", url=url, error=str(error))
        return False


def _decoded(text: str | bytes) -> dict[str, object]:
    try:
        message = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def _is_pong(message: dict[str, object]) -> bool:
    return "pong" in (message.get("op"), message.get("ret_msg"))


def _is_data(message: dict[str, object]) -> bool:
    return isinstance(message.get("topic"), str) and "data" in message
