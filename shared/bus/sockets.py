"""ZeroMQ sockets: endpoints, binding and the settings that all sockets share."""

import os
import stat
from collections.abc import Callable

import zmq

from bybit_pipeline.shared.errors import TakenError

LINGER_MS = 500
RECONNECT_MS = 20
"""Interval between two attempts to connect to an endpoint that is not bound."""
IPC_PATH_MAX = 107


def ipc_endpoint(path: str) -> str:
    """
    Return the ``ipc://`` endpoint of a socket file.

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
    Bind and return the actual endpoint, with the port that was chosen for port 0 or ``*``.

    Raises:
        TakenError: If the address is in use or cannot be bound.
    """
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise TakenError(f"cannot bind {endpoint}: the path exists and is not a socket")
    asked = endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint
    try:
        socket.bind(asked)
    except zmq.ZMQError as error:
        raise TakenError(f"cannot bind {endpoint}: {error}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def plain_send(socket: "zmq.Socket[bytes]") -> Callable[[bytes, int], object]:
    """
    Return ``send(frame, flags)`` of a socket without pyzmq's wrapper.

    The wrapper handles options that are not used here, and takes almost half of the time. Sockets
    that are not pyzmq's, as in a simulation, have none.
    """
    return super(zmq.Socket, socket).send if isinstance(socket, zmq.Socket) else socket.send
