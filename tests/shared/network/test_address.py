"""Host and port of a URL."""

import pytest

from bybit_pipeline.shared.network.address import parse_url


@pytest.mark.parametrize(
    ("url", "text", "is_secure"),
    [
        ("wss://stream.bybit.com/v5/public/linear", "stream.bybit.com:443", True),
        ("ws://127.0.0.1:9000/v5/public/linear", "127.0.0.1:9000", False),
        ("ws://[2001:db8::5]/", "[2001:db8::5]:80", False),
        ("wss://bücher.example/", "xn--bcher-kva.example:443", True),
    ],
)
def test_an_address_has_host_port_and_security(url: str, text: str, is_secure: bool) -> None:
    address = parse_url(url)
    assert (text, is_secure) == (str(address), address.is_secure)


@pytest.mark.parametrize(
    "url",
    [
        "http://x/",
        "127.0.0.1:80",
        "wss://",
        "",
        "ws:///x",
        "ws://h:x/",
        "ws://[::1/",
        "wss://.bybit.com/",
        f"wss://{'a' * 64}.com/",
    ],
)
def test_a_url_that_is_not_a_websocket_address_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="is not a websocket address; use ws://"):
        parse_url(url)
