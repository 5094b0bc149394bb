"""The websocket handshake on an open socket, and what its refusal asks for."""

import math
import socket
from datetime import UTC
from email.utils import parsedate_to_datetime

import websocket

RETRY_AFTER_MAX_S = 600.0
"""Longest pause that a server may ask for. A wrong value must not silence us for a day."""
RETRY_AFTER_STATUSES = (429, 503)

NETWORK_ERRORS = (OSError, websocket.WebSocketException)
"""Errors that a network can cause; every other exception is a bug."""


class HandshakeFailed(websocket.WebSocketException):
    """The server did not respond like a websocket server."""


def upgrade(client: websocket.WebSocket, url: str, sock: socket.socket) -> None:
    """
    Make an open socket a websocket.

    Raises:
        OSError, websocket.WebSocketException: One of ``NETWORK_ERRORS``.
    """
    try:
        # No redirects: a person must look into it when the market data moves to another host.
        client.connect(url, socket=sock, redirect_limit=0)  # type: ignore[no-untyped-call]
    except websocket.WebSocketTimeoutException as error:
        raise TimeoutError("no response to the handshake") from error
    except NETWORK_ERRORS as error:
        if type(error) is websocket.WebSocketException:
            raise HandshakeFailed(str(error)) from error
        raise
    except Exception as error:
        # The library parses the response carelessly: a bad one raises almost anything.
        raise HandshakeFailed(f"unreadable response: {error}") from error


def retry_after_s(error: Exception, now_s: float) -> float:
    """
    Seconds to wait for before the next attempt, as the server asks; 0 if it does not.

    Args:
        error: Of the handshake.
        now_s: Wall clock, in seconds since 1970.
    """
    match error:
        case websocket.WebSocketBadStatusException(status_code=int(status)):
            headers = getattr(error, "resp_headers", None) or {}
            if status in RETRY_AFTER_STATUSES:
                return parse_retry_after(str(headers.get("retry-after", "")), now_s)
    return 0.0


def parse_retry_after(value: str, now_s: float) -> float:
    """``Retry-After``, as seconds or as a date (RFC 9110, section 10.2.3), in seconds from now."""
    value = value.strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
    if math.isnan(seconds):
        return 0.0
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)
