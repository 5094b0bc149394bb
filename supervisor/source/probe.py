"""
Asking whether the exchange answers, while simulated data stand in for it.

A thread that opens a websocket, sends Bybit's JSON ping and waits for the pong, again and again
with growing pauses, until it is answered once or told to stop.
"""

import os
import threading
import time
from collections.abc import Iterator

import msgspec
import structlog
import websocket

log = structlog.get_logger()

ANSWER_S = 5.0
"""How long the handshake, and then the pong, may take."""
CLOSE_S = 0.1
GROWTH = 1.25
"""
Each pause is this much longer than the last: often at first, so that a short outage at start costs
little, and seldom in the end, so that nobody is pestered.
"""


class Prober:
    """
    Tells by a byte in a pipe that the exchange answers.

    Args:
        url: What connectors would connect to, category filled in.
        pause_initial_s: First pause between attempts.
        pause_max_s: Longest pause.

    Attributes:
        reader: Becomes readable once, when the exchange answered.
        attempts: Attempts so far.
    """

    def __init__(self, url: str, *, pause_initial_s: float, pause_max_s: float) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.attempts = 0
        self._url = url
        self._pauses = growing_pauses(pause_initial_s, pause_max_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        """Begin; the first attempt comes after the first pause."""
        self._thread.start()

    def close(self) -> None:
        """
        Stop.

        An attempt that is under way is not waited for: its thread ends by itself or with the
        process, and until then keeps the pipe.
        """
        self._stopping.set()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            os.close(self.reader)
            os.close(self._writer)

    def _run(self) -> None:
        while not self._stopping.wait(next(self._pauses)):
            self.attempts += 1
            if is_answered(self._url):
                os.write(self._writer, b"x")
                return


def growing_pauses(initial_s: float, maximum_s: float) -> Iterator[float]:
    """Pauses in seconds from the first to the longest, which repeats for ever."""
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
