"""What a refused handshake asks for."""

import pytest
import websocket

from bybit_pipeline.shared.network.handshake import (
    RETRY_AFTER_MAX_S,
    parse_retry_after,
    retry_after_s,
)

NOW_S = 1_445_412_440.0  # Wed, 21 Oct 2015 07:27:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 40.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 40.0),
        ("Wed Oct 21 07:28:00 2015", 40.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("-5", 0.0),
        ("1e9", RETRY_AFTER_MAX_S),
        ("inf", RETRY_AFTER_MAX_S),
        ("nan", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", RETRY_AFTER_MAX_S),
        ("", 0.0),
        ("soon", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_a_pause_is_seconds_or_a_date_within_bounds(value: str, seconds: float) -> None:
    assert seconds == parse_retry_after(value, NOW_S)


@pytest.mark.parametrize(("status", "seconds"), [(429, 30.0), (503, 30.0), (403, 0.0), (302, 0.0)])
def test_only_an_overloaded_server_may_ask_for_a_pause(status: int, seconds: float) -> None:
    error = websocket.WebSocketBadStatusException("x", status, "x", {"retry-after": "30"})
    assert seconds == retry_after_s(error, NOW_S)
    assert 0.0 == retry_after_s(OSError("x"), NOW_S)
    assert 0.0 == retry_after_s(websocket.WebSocketBadStatusException("x", status), NOW_S)
