"""
Who may connect to the metrics socket when it has keys: CURVE, with clients allowed by file.

libzmq asks about every client that has proved to own its key, over ZAP (ZeroMQ RFC 27), a request
and an answer inside this process. The socket is told to refuse everybody when nobody answers.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.curve_keys import clients_dir, read_allowed, read_server_keys

log = structlog.get_logger()

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"metrics"
HANDSHAKE_MS = 5_000
"""How long a connection may take to prove who it is."""
ANSWER_LIMIT = 100
"""Requests answered in one turn: handshakes must not hold up metrics."""
FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL

Refusal = Literal["unknown_key", "handshake"]
REFUSALS: tuple[Refusal, ...] = ("unknown_key", "handshake")
"""A client whose key is not allowed; one without keys, with another server's, or no client."""


def zap_answer(request: list[bytes], allowed: dict[bytes, str]) -> tuple[list[bytes], str | None]:
    """
    The answer to a ZAP request, and the name of the client it lets in.

    Args:
        request: Frames: version, request id, domain, address, identity, mechanism, credentials.
        allowed: Names by public key.
    """
    name = None
    if len(request) == 7 and (request[0], request[5]) == (b"1.0", b"CURVE"):
        name = allowed.get(request[6])
    number = request[1] if len(request) > 1 else b""
    code, text = (b"200", b"OK") if name else (b"400", b"not allowed")
    return [b"1.0", number, code, text, (name or "").encode(), b""], name


class Authenticator:
    """
    The keys of the metrics socket and the answers to who comes.

    Args:
        context: Of the metrics socket.
        directory: Of the keys.

    Attributes:
        socket: To be watched; then ``answer``.
        refused: Clients turned away since the start, by reason.

    Raises:
        ConfigError: If the keys cannot be used.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", directory: Path) -> None:
        self.refused: Counter[Refusal] = Counter(dict.fromkeys(REFUSALS, 0))
        self._directory = directory
        self._keys = read_server_keys(directory)
        self._allowed, self._faults = read_allowed(directory)
        self._changed_ns = self._clients_changed()
        self._let_in: set[bytes] = set()
        self._log_faults()
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)

    def lock(self, socket: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
        """
        Give a socket its keys, before it is bound, and forget who was let in before.

        Returns:
            Its monitor, to be watched; then ``count_failures``.
        """
        self._let_in.clear()
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        return socket.get_monitor_socket(FAILURES)

    def answer(self) -> None:
        """Answer what libzmq asks."""
        for _ in range(ANSWER_LIMIT):
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            answer, name = zap_answer(request, self._allowed)
            if name is None and self._clients_changed() != self._changed_ns:
                self.refresh()  # allowed a moment ago, perhaps
                answer, name = zap_answer(request, self._allowed)
            self.socket.send_multipart(answer)
            if name is None:
                self.refused["unknown_key"] += 1
            else:
                self._let_in.add(request[6])
                log.info("client let in", client=name, address=request[3].decode())

    def count_failures(self, monitor: "zmq.Socket[bytes]") -> None:
        """Count connections that never came as far as to be asked about."""
        while monitor.poll(0):
            recv_monitor_message(monitor)
            self.refused["handshake"] += 1

    def refresh(self) -> bool:
        """
        Read the allowed keys again.

        When they cannot be read nobody is allowed.

        Returns:
            True if somebody who was let in is no longer allowed.
        """
        self._changed_ns = self._clients_changed()
        try:
            self._allowed, faults = read_allowed(self._directory)
        except ConfigError as error:
            self._allowed, faults = {}, [str(error)]
        if faults != self._faults:
            self._faults = faults
            self._log_faults()
        return not self._let_in <= self._allowed.keys()

    def close(self) -> None:
        """Answer no longer."""
        self.socket.close()

    def _clients_changed(self) -> int:
        """When a client's key was last added or removed, in ns since the epoch."""
        try:
            return clients_dir(self._directory).stat().st_mtime_ns
        except OSError:
            return 0

    def _log_faults(self) -> None:
        for fault in self._faults:
            log.warning("key not usable", error=fault)
