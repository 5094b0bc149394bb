"""Who is measured, how each is started, and what is fair or unfair about it."""

from dataclasses import dataclass

OURS = "bybit-pipeline"


@dataclass(frozen=True)
class Contestant:
    """A rival's driver module and variant; ours has none."""

    name: str
    note: str
    module: str = ""
    variant: str = ""
    reports_touch: bool = True


CONTESTANTS = (
    Contestant(
        OURS,
        "Whole pipeline by the user's command, default configuration: connector, trades and "
        "orderbook worker, forwarder, supervisor; every measure published, every counter on.",
    ),
    Contestant(
        "pybit",
        "One process. Merges books (unsorted lists), computes nothing, detects no loss.",
        "scripts.benchmarks.rivals.pybit_client",
        "plain",
    ),
    Contestant(
        "pybit+wsaccel",
        "The same with wsaccel installed, which websocket-client uses by itself.",
        "scripts.benchmarks.rivals.pybit_client",
        "wsaccel",
    ),
    Contestant(
        "ccxt.pro",
        "One process, uvloop and orjson. Keeps sorted books and the last 1000 trades. aiohttp is "
        "held below 3.14, with which ccxt 4.5 stops reading.",
        "scripts.benchmarks.rivals.ccxt_client",
    ),
    Contestant(
        "cryptofeed",
        "One process on uvloop, compiled types, C order book; callbacks only count.",
        "scripts.benchmarks.rivals.cryptofeed_client",
        "callbacks",
    ),
    Contestant(
        "cryptofeed+zmq",
        "Its ZeroMQ backend for books and trades, and one consumer that counts without decoding.",
        "scripts.benchmarks.rivals.cryptofeed_client",
        "zmq",
        reports_touch=False,
    ),
    Contestant(
        "floor",
        "Two processes, every step in C: picows, msgspec, libzmq; a plain dict as book. No "
        "measures, counters, checks or restarts.",
        "scripts.benchmarks.rivals.floor",
        "dict",
    ),
    Contestant(
        "floor+c-book",
        "The same with the C order_book package that cryptofeed brings (GPL, so only measured).",
        "scripts.benchmarks.rivals.floor",
        "c-book",
    ),
)

BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
