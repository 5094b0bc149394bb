r"""
Topic names: building and parsing ``kind.category.symbol``.

The market bus (``trade``, ``book``, ``link``, ``heartbeat``) and the metrics socket (``trades``,
``orderbook``, ``density``, ``gap``, ``process``) use the same scheme. ZeroMQ matches subscriptions
by prefix, so a market bus topic ends with the terminator ``\x00``: a subscription with it matches
one symbol exactly, and ``BTCUSDT`` does not match ``BTCUSDTPERP``.
"""

from typing import NamedTuple

TERMINATOR = b"\x00"
METRIC_KINDS = ("trades", "orderbook", "density", "gap", "process")
"""Kinds of topics on the metrics socket."""


class Topic(NamedTuple):
    """The three parts of a topic. A symbol may contain dots, as Bybit's options do."""

    kind: str
    category: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.category}.{self.symbol}"


def parse_topic(text: str) -> Topic:
    """
    Return the parts of ``kind.category.symbol``.

    Raises:
        ValueError: If one of the three parts is missing or empty.
    """
    parts = text.split(".", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"not a kind.category.symbol topic: {text!r}")
    return Topic(*parts)


def market_topic(kind: str, category: str, symbol: str) -> bytes:
    """Return the topic of a market bus message with its terminator; also the subscription."""
    return f"{kind}.{category}.{symbol}".encode() + TERMINATOR


def link_topic(connector: str) -> bytes:
    """Return the market bus topic of a connector's link events, with its terminator."""
    return f"link.{connector}".encode() + TERMINATOR


def heartbeat_topic(process: str) -> bytes:
    """Return the market bus topic of a connector's heartbeats, with its terminator."""
    return f"heartbeat.{process}".encode() + TERMINATOR


def is_heartbeat(market_topic_bytes: bytes) -> bool:
    """Return True for the topic of a connector's heartbeats."""
    return market_topic_bytes.startswith(b"heartbeat.")


def topic_text(market_topic_bytes: bytes) -> str:
    """Return a market bus topic as text, without its terminator."""
    return market_topic_bytes.removesuffix(TERMINATOR).decode()


def metric_topic(kind: str, category: str, symbol: str) -> bytes:
    """Return the first frame of a metric; without a terminator, because users match by prefix."""
    return f"{kind}.{category}.{symbol}".encode()


def process_topic(process: str) -> bytes:
    """Return the first frame of a process status."""
    return f"process.{process}".encode()
