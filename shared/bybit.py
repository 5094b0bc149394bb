"""
Facts of Bybit's v5 public API, each written once. Pure.

Everything that the exchange decides and more than one file needs: categories, depths, addresses,
topic names, limits and the grammar of symbols. Shapes of messages are in the connector's
``protocol``.

The simulated exchange has its own copies on purpose: a mistake here must not hide in both.

https://bybit-exchange.github.io/docs/v5/ws/connect,
https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook,
https://bybit-exchange.github.io/docs/v5/websocket/public/trade,
https://bybit-exchange.github.io/docs/v5/rate-limit
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from bybit_pipeline.shared.wire.messages import Category

Network = Literal["mainnet", "testnet"]
StreamKind = Literal["trade", "book"]

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)

# -- order books ---------------------------------------------------------------------------------

DEPTHS: Final[Mapping[str, tuple[int, ...]]] = {
    "spot": (1, 50, 200, 1000),
    "linear": (1, 50, 200, 1000),
    "inverse": (1, 50, 200, 1000),
    "option": (25, 100),
}
"""Levels a side that each category serves today; recorded captures hold other ones."""
DEPTH_MAX: Final = 9999
"""Largest depth that a topic may name here: far above every depth that Bybit ever served."""
PUSH_PERIOD_MS: Final[Mapping[int, int]] = {1: 10, 25: 20, 50: 20, 100: 100, 200: 100, 1000: 200}
"""Shortest time between two messages of a book, by depth; the same in every category."""

# -- addresses -----------------------------------------------------------------------------------

STREAM_URLS: Final[Mapping[Network, str]] = {
    "mainnet": "wss://stream.bybit.com/v5/public/{category}",
    "testnet": "wss://stream-testnet.bybit.com/v5/public/{category}",
}
"""Websocket of the public streams; ``{category}`` is to be filled in."""
SIMULATOR_NAME: Final = "bybit-pipeline-simulator"
"""``Server`` header of our simulated exchange, by which a connector recognizes it."""


def rest_url(stream_url: str) -> str:
    """
    Address of the REST API that belongs to a websocket URL, without a path; empty if none does.

    REST is on the host of the websocket, except that ``stream.HOST`` has it on ``api.HOST`` and
    ``stream-testnet.HOST`` on ``api-testnet.HOST``.
    """
    parts = urlsplit(stream_url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme)
    host = re.sub(r"^stream(?=[.-])", "api", parts.netloc)
    return f"{scheme}://{host}" if scheme else ""


# -- symbols -------------------------------------------------------------------------------------

SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,63}")
"""
A symbol that this pipeline can subscribe: ``BTCUSDT``, ``BTC-30OCT26-65000-C-USDT``,
``BTCUSDU26``. No symbol of Bybit's has small letters.
"""
INVERSE_SYMBOL: Final = re.compile(r"[A-Z0-9]+USD([FGHJKMNQUVXZ]\d\d)?")
"""An inverse contract: a perpetual (``BTCUSD``) or a future with month and year (``BTCUSDU26``)."""


def base_coin(option_symbol: str) -> str:
    """The coin at the start of an option symbol: ``BTC`` for ``BTC-30OCT26-65000-C-USDT``."""
    return option_symbol.partition("-")[0]


# -- topics --------------------------------------------------------------------------------------

TRADES_PREFIX: Final = "publicTrade."
BOOK_PREFIX: Final = "orderbook."


class ExchangeTopic(NamedTuple):
    """The parts of a topic of the exchange."""

    kind: StreamKind
    depth: int
    """Levels a side of a book; 0 for trades."""
    name: str
    """The symbol; for the trades of options the base coin."""


@lru_cache(maxsize=8192)
def parse_exchange_topic(topic: str) -> ExchangeTopic:
    """
    The parts of ``publicTrade.NAME`` or ``orderbook.DEPTH.NAME``; a name may contain dots.

    Raises:
        ValueError: For every other topic.
    """
    kind, _, rest = topic.partition(".")
    if kind == "publicTrade" and rest:
        return ExchangeTopic("trade", 0, rest)
    depth, _, name = rest.partition(".")
    if kind == "orderbook" and name and depth.isascii() and depth.isdigit() and len(depth) <= 4:
        return ExchangeTopic("book", int(depth), name)
    raise ValueError(f"not a topic of trades or books: {topic[:100]!r}")


def trades_topic(category: Category, symbol: str) -> str:
    """
    The topic that carries the trades of a symbol: ``publicTrade.BTCUSDT``.

    The trades of all options on one base coin share a topic: ``publicTrade.BTC``.
    """
    return f"{TRADES_PREFIX}{base_coin(symbol) if category == 'option' else symbol}"


def book_topic(symbol: str, depth: int) -> str:
    """The topic that carries the book of a symbol: ``orderbook.50.BTCUSDT``."""
    return f"{BOOK_PREFIX}{depth}.{symbol}"


# -- limits --------------------------------------------------------------------------------------

TOPICS_PER_REQUEST_MAX: Final = 10
"""Topics in one subscribe request. Spot rejects more; the other categories need no more."""
TOPIC_CHARACTERS_MAX: Final = 21_000
"""Length of all topics of one connection together; see ``topic_characters``."""
CONNECTIONS_MAX: Final = 500
"""New connections from one IP address in ``CONNECTIONS_PERIOD_S``; Bybit bans for more."""
CONNECTIONS_PERIOD_S: Final = 300.0
RATE_LIMITED_CODE: Final = 10006
"""``retCode`` of a REST response that means too many requests."""

PIPELINE_QUOTA: Final = 400
"""
Connection attempts of all our connectors together in ``CONNECTIONS_PERIOD_S``.

Below ``CONNECTIONS_MAX``: the rest is for our probe of the exchange and for other programs behind
the same address.
"""
CONNECTOR_QUOTA: Final = 60
"""Connection attempts of one connector in ``CONNECTIONS_PERIOD_S``: one every 5 s."""


def topic_characters(topics: Iterable[str]) -> int:
    """
    Length of the topics as Bybit may count it, to compare with ``TOPIC_CHARACTERS_MAX``.

    Bybit does not document how it counts: this is a JSON array without spaces, which is the longest
    way.
    """
    return len("[]") + sum(len(topic) + len('"",') for topic in topics)
