r"""
Topic names: ``kind.category.symbol``, both ways, and the exact-match terminator.

The same scheme names the market bus (``trade``, ``book``, ``link``) and the metrics socket
(``trades``, ``orderbook``, ``density``, ``gap``, ``process``). ZeroMQ matches subscriptions by
prefix, so a market bus topic ends with ``\x00``: subscribing with the terminator matches one
symbol exactly and ``BTCUSDT`` never catches ``BTCUSDTPERP``.
"""

from typing import NamedTuple

TERMINATOR = b"\x00"
METRIC_KINDS = ("trades", "orderbook", "density", "gap", "process")
"""Kinds of topics on the metrics socket."""


class Topic(NamedTuple):
    """The three parts of a topic; a symbol may hold dots (Bybit's options do)."""

    kind: str
    category: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.category}.{self.symbol}"


def parse_topic(text: str) -> Topic:
    """
    The parts of ``kind.category.symbol``.

    Raises:
        ValueError: If one of the three parts is missing or empty.
    """
    parts = text.split(".", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"not a kind.category.symbol topic: {text!r}")
    return Topic(*parts)


def market_topic(kind: str, category: str, symbol: str) -> bytes:
    """The bytes in front of a market bus message, terminator included; also its subscription."""
    return f"{kind}.{category}.{symbol}".encode() + TERMINATOR


def link_topic(connector: str) -> bytes:
    """The market bus topic on which a connector announces its link, terminator included."""
    return f"link.{connector}".encode() + TERMINATOR


def topic_text(market_topic_bytes: bytes) -> str:
    """A market bus topic as text, without its terminator."""
    return market_topic_bytes.removesuffix(TERMINATOR).decode()


def metric_topic(kind: str, category: str, symbol: str) -> bytes:
    """The first frame of a metric message; no terminator, people subscribe by prefix."""
    return f"{kind}.{category}.{symbol}".encode()


def process_topic(process: str) -> bytes:
    """The first frame of a process status message."""
    return f"process.{process}".encode()
