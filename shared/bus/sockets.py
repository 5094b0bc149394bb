"""ZeroMQ sockets: endpoints, binding and the settings that all sockets share."""

import os
import stat
from collections.abc import Callable

import zmq

from bybit_pipeline.shared.errors import TakenError

LINGER_MS = 500
RECONNECT_MS = 20
"""How soon a SUB tries a bound endpoint that is not there yet, or again."""
IPC_PATH_MAX = 107


def ipc_endpoint(path: str) -> str:
    """
    The ``ipc://`` endpoint for a socket file.

    Raises:
        TakenError: If the path is longer than the operating system allows for a socket.
    """
    if len(os.fsencode(path)) > IPC_PATH_MAX:
        raise TakenError(
            f"run_dir: socket path {path!r} has {len(os.fsencode(path))} bytes; "
            f"allowed: at most {IPC_PATH_MAX}, choose a shorter run directory"
        )
    return f"ipc://{path}"


def bind(socket: "zmq.Socket[bytes]", endpoint: str) -> str:
    """
    Bind and return the real endpoint (the port that the OS chose for port 0 or ``*``).

    Raises:
        TakenError: If the address is in use or cannot be bound.
    """
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise TakenError(f"cannot bind {endpoint}: a file is there that is no socket")
    asked = endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint
    try:
        socket.bind(asked)
    except zmq.ZMQError as error:
        raise TakenError(f"cannot bind {endpoint}: {error}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def plain_send(socket: "zmq.Socket[bytes]") -> Callable[[bytes, int], object]:
    """
    ``send(frame, flags)`` of a socket, by pyzmq's own method.

    The one that wraps it, for options not used here, costs 0.2 of 0.5 us.
    """
    return super(zmq.Socket, socket).send
