"""
Names of processes, and of the topics that they subscribe on the exchange. Pure.

A process name starts with its role: ``forwarder``, ``trades-0``, ``connector-linear-0``.
"""

import re
from typing import cast

from bybit_pipeline.shared.bybit import book_topic, trades_topic
from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.shared.wire.messages import Category

FORWARDER = "forwarder"
DASHBOARD = "dashboard"
SIMULATOR = "simulator"
PROCESS_NAME = re.compile(
    r"forwarder|dashboard|simulator|(?:trades|orderbook)-\d+|connector-(?:spot|linear|inverse|option)-\d+"
)
"""Name of a child, as in the names of its files in the run directory."""


def role_of(process: str) -> str:
    """The role in a process name: ``connector-linear-0`` is a ``connector``."""
    return process.split("-")[0]


def is_owner(worker: str, stream: Stream) -> bool:
    """True for the worker that publishes metrics of a stream; others only read it."""
    return (role_of(worker) == "trades") == (stream.kind == "trade")


def category_of(connector: str) -> Category:
    """The category in a connector's name."""
    return cast(Category, connector.split("-")[1])


def fill_category(url: str, category: str) -> str:
    """The URL with ``{category}`` filled in."""
    return url.replace("{category}", category)


def exchange_topic(stream: Stream) -> str:
    """Bybit's topic for a stream; the option trades of one base coin share a topic."""
    if stream.kind == "book":
        return book_topic(stream.symbol, stream.depth)
    return trades_topic(stream.category, stream.symbol)
