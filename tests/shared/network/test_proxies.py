"""Which proxy is used for an address, by configuration and environment."""

import pytest

from bybit_pipeline.shared.network.address import Address, parse_url
from bybit_pipeline.shared.network.proxies import ProxyInvalid, is_exempt, parse_proxy, proxy_for

WSS = parse_url("wss://stream.bybit.com/v5/public/linear")
WS = parse_url("ws://stream.bybit.com/v5/public/linear")


def chosen(address: Address, configured: str = "", **environ: str) -> str:
    """Host of the proxy, and who names it; empty for a direct connection."""
    proxy = proxy_for(address, configured, environ)
    return f"{proxy.host} by {proxy.origin}" if proxy else ""


@pytest.mark.parametrize(
    ("address", "environ", "expected"),
    [
        (WSS, {}, ""),
        (WSS, {"HTTPS_PROXY": "http://p:3128"}, "p by HTTPS_PROXY"),
        (WSS, {"HTTP_PROXY": "http://p:3128"}, ""),
        (WS, {"HTTP_PROXY": "http://p:3128"}, "p by HTTP_PROXY"),
        (WS, {"HTTPS_PROXY": "http://p:3128"}, ""),
        (WS, {"ALL_PROXY": "http://p:3128"}, "p by ALL_PROXY"),
        (WSS, {"ALL_PROXY": "http://a", "HTTPS_PROXY": "http://p"}, "p by HTTPS_PROXY"),
        (WSS, {"HTTPS_PROXY": "http://big", "https_proxy": "http://small"}, "small by https_proxy"),
        (WSS, {"HTTPS_PROXY": "http://big", "https_proxy": ""}, "big by HTTPS_PROXY"),
        (WSS, {"HTTPS_PROXY": "http://p", "NO_PROXY": "bybit.com"}, ""),
        (WSS, {"HTTPS_PROXY": "http://p", "no_proxy": "example.com"}, "p by HTTPS_PROXY"),
    ],
)
def test_the_environment_names_the_proxy(
    address: Address, environ: dict[str, str], expected: str
) -> None:
    assert expected == chosen(address, **environ)


def test_the_configuration_wins_over_the_environment_and_its_exceptions() -> None:
    environ = {"HTTPS_PROXY": "http://env", "NO_PROXY": "*"}
    assert "conf by connector.proxy" == chosen(WSS, "http://conf:8080", **environ)
    assert "" == chosen(WSS, "none", HTTPS_PROXY="http://env")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    address = parse_url(f"ws://{host}:9000/v5/public/linear")
    assert "" == chosen(address, "http://conf:1", HTTP_PROXY="http://env:1")


@pytest.mark.parametrize(
    ("exceptions", "is_one"),
    [
        ("", False),
        ("*", True),
        ("bybit.com", True),
        (".bybit.com", True),
        ("*.bybit.com", True),
        ("BYBIT.com", True),
        ("stream.bybit.com:443", True),
        ("stream.bybit.com:80", False),
        ("it.com", False),
        ("a.com, b.com bybit.com", True),
        ("10.0.0.0/8", False),
        (",,", False),
    ],
)
def test_exceptions_are_names_with_their_subdomains(exceptions: str, is_one: bool) -> None:
    assert is_one is is_exempt(WSS, exceptions)


@pytest.mark.parametrize(
    ("host", "exceptions", "is_one"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("2001:db8::5", "2001:db8::/32", True),
        ("2001:db8::5", "[2001:db8::5]:443", True),
        ("2001:db8::5", "2001:db8::6", False),
    ],
)
def test_exceptions_are_addresses_and_networks(host: str, exceptions: str, is_one: bool) -> None:
    assert is_one is is_exempt(Address(host, 443, is_secure=True), exceptions)


def test_a_proxy_has_credentials_that_its_text_leaves_out() -> None:
    proxy = parse_proxy("http://me:p%40ss@proxy.corp", "HTTPS_PROXY")
    assert ("me", "p@ss", 80) == (proxy.username, proxy.password, proxy.port)
    assert "http://proxy.corp:80 (HTTPS_PROXY)" == str(proxy)
    assert "http" == parse_proxy("proxy.corp:3128", "HTTPS_PROXY").kind
    assert 1080 == parse_proxy("socks5h://proxy.corp", "ALL_PROXY").port


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("socks4://me:secret@p:1", "socks4 proxies are not supported"),
        ("https://me:secret@p:1", "https proxies are not supported"),
        ("http://me:secret@:1", "not the address of a proxy"),
        ("http://me:secret@p:x", "not the address of a proxy"),
    ],
)
def test_an_unusable_proxy_is_one_line_that_names_its_origin(url: str, what: str) -> None:
    with pytest.raises(ProxyInvalid) as caught:
        proxy_for(WSS, "", {"ALL_PROXY": url})
    text = str(caught.value)
    assert text.startswith(f"ALL_PROXY: {what}; use http://")
    assert "secret" not in text
    assert "\n" not in text
