"""
The probe: asks an unreachable exchange whether it answers again.

A thread opens a websocket, sends Bybit's JSON ping and waits for the pong. It repeats this with
growing pauses until the exchange answers once, or until it is stopped.
"""

import threading
import time
from collections.abc import Iterator

import msgspec
import structlog
import websocket

from bybit_pipeline.shared.runtime.wakeup import Wakeup

log = structlog.get_logger()

ANSWER_S = 5.0
"""Time limit of the handshake, and again of the pong."""
CLOSE_S = 0.1
GROWTH = 1.25
"""
Growth of the pauses.

Short ones at first, so that a short outage at the start costs little; long ones later, to save the
exchange useless requests.
"""


class Prober:
    """
    Probes one address and wakes the poll loop when it answers.

    Args:
        pause_initial_s: First pause between attempts.
        pause_max_s: Longest pause.

    Attributes:
        wakeup: Set once, when the exchange has answered.
        attempts: Attempts so far.
    """

    def __init__(self, *, pause_initial_s: float, pause_max_s: float) -> None:
        self.wakeup = Wakeup()
        self.attempts = 0
        self._pauses = growing_pauses(pause_initial_s, pause_max_s)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        """Start probing a websocket URL; the first attempt follows the first pause."""
        self._thread = threading.Thread(target=self._run, args=(url,), name="probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a running attempt is not awaited, its thread ends by itself."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self.wakeup.close()

    def _run(self, url: str) -> None:
        while not self._stopping.wait(next(self._pauses)):
            self.attempts += 1
            if is_answered(url):
                self.wakeup.set()
                return


def growing_pauses(initial_s: float, maximum_s: float) -> Iterator[float]:
    """Pauses in seconds, growing to the longest one, which repeats without end."""
    pause = initial_s
    while True:
        yield pause
        pause = min(pause * GROWTH, maximum_s)


def is_answered(url: str, *, timeout_s: float = ANSWER_S) -> bool:
    """True if a websocket opens there and answers ``{"op":"ping"}`` as Bybit does."""
    try:
        connection = websocket.create_connection(url, timeout=timeout_s)
        try:
            connection.send('{"op":"ping"}')
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                if _is_pong(connection.recv()):
                    return True
        finally:
            connection.close(timeout=1)
    except (OSError, ValueError, websocket.WebSocketException) as error:
        log.debug("exchange does not answer", url=url, error=str(error))
    return False


def _is_pong(text: str | bytes) -> bool:
    try:
        message = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return isinstance(message, dict) and "pong" in (message.get("op"), message.get("ret_msg"))
