"""
Access control of the metrics socket: CURVE, with the allowed clients listed by key files.

libzmq verifies that a client owns its key. It then asks over ZAP (ZeroMQ RFC 27), a request and a
reply inside this process, whether the key is allowed. The socket refuses all clients if nobody
answers these requests.
"""

from collections import Counter
from pathlib import Path
from typing import Literal, get_args

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.curve_keys import clients_dir, read_allowed, read_server_keys

log = structlog.get_logger()

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"metrics"
HANDSHAKE_MS = 5_000
"""Time limit for a connection to prove that it owns its key."""
ANSWER_LIMIT = 100
"""Requests answered per turn of the loop, so that metrics pass during many handshakes."""
FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL

Refusal = Literal["unknown_key", "handshake"]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)
"""
``unknown_key``: the client's key is not allowed. ``handshake``: the client has no keys, expects
another server key, or does not speak CURVE.
"""


def zap_answer(request: list[bytes], allowed: dict[bytes, str]) -> tuple[list[bytes], str | None]:
    """
    Return the reply to a ZAP request, and the name of the client if it is admitted.

    Args:
        request: Frames: version, request id, domain, address, identity, mechanism, credentials.
        allowed: Client names by public key.
    """
    name = None
    if len(request) == 7 and (request[0], request[5]) == (b"1.0", b"CURVE"):
        name = allowed.get(request[6])
    number = request[1] if len(request) > 1 else b""
    code, text = (b"200", b"OK") if name else (b"400", b"not allowed")
    return [b"1.0", number, code, text, (name or "").encode(), b""], name


class Authenticator:
    """
    The keys of the metrics socket, and the answers to libzmq's requests.

    Args:
        context: Context of the metrics socket.
        directory: Directory of the keys.

    Attributes:
        socket: The socket to watch; call ``answer`` when it is readable.
        refused: Number of refused clients, by reason.

    Raises:
        ConfigError: The keys cannot be used.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", directory: Path) -> None:
        self.refused: Counter[Refusal] = Counter(dict.fromkeys(REFUSALS, 0))
        self._directory = directory
        self._keys = read_server_keys(directory)
        self._allowed, self._faults = read_allowed(directory)
        self._changed_ns = self._clients_changed()
        self._admitted: set[bytes] = set()
        self._log_faults()
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)

    def secure(self, socket: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
        """
        Set the keys of a socket that is not bound yet, and forget the admitted clients.

        Returns:
            The socket's monitor; call ``count_failures`` when it is readable.
        """
        self._admitted.clear()
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        return socket.get_monitor_socket(FAILURES)

    def answer(self) -> None:
        """Answer the pending requests of libzmq."""
        for _ in range(ANSWER_LIMIT):
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            answer, name = zap_answer(request, self._allowed)
            if name is None and self._clients_changed() != self._changed_ns:
                self.refresh()  # the key may have been added a moment ago
                answer, name = zap_answer(request, self._allowed)
            self.socket.send_multipart(answer)
            if name is None:
                self.refused["unknown_key"] += 1
            else:
                self._admitted.add(request[6])
                log.info("client admitted", client=name, address=request[3].decode())

    def count_failures(self, monitor: "zmq.Socket[bytes]") -> None:
        """Count the connections whose handshake failed before libzmq could ask about them."""
        while monitor.poll(0):
            recv_monitor_message(monitor)
            self.refused["handshake"] += 1

    def refresh(self) -> bool:
        """
        Read the allowed keys again; if they cannot be read, no client is allowed.

        Returns:
            True if an admitted client is no longer allowed.
        """
        self._changed_ns = self._clients_changed()
        try:
            self._allowed, faults = read_allowed(self._directory)
        except ConfigError as error:
            self._allowed, faults = {}, [str(error)]
        if faults != self._faults:
            self._faults = faults
            self._log_faults()
        return not self._admitted <= self._allowed.keys()

    def close(self) -> None:
        """Stop answering."""
        self.socket.close()

    def _clients_changed(self) -> int:
        """Return the time of the last change in the directory of client keys, in Unix ns."""
        try:
            return clients_dir(self._directory).stat().st_mtime_ns
        except OSError:
            return 0

    def _log_faults(self) -> None:
        for fault in self._faults:
            log.warning("client key unusable", error=fault)
