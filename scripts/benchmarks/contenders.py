"""The measured programs, how each is started, and notes on the fairness of the comparison."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

OURS = "bybit-pipeline"
THIS, OTHER = "this build", "other build"


@dataclass(frozen=True)
class Contender:
    """A measured program: a build of this pipeline, or a rival."""

    name: str
    note: str
    module: str = ""
    """Module of a rival's driver; empty for this pipeline."""
    variant: str = ""
    reports_touch: bool = True
    """True if the driver reports its best bid and ask for verification."""
    command: str = ""
    """Path of the ``bybit-pipeline`` of another build; empty for this one."""


CONTENDERS = (
    Contender(
        OURS,
        "The whole pipeline by its command, default configuration: connector, trades and "
        "orderbook worker, forwarder, supervisor; every measure published, every counter on.",
    ),
    Contender(
        "pybit",
        "One process. Merges books (unsorted lists), computes nothing, detects no loss.",
        "scripts.benchmarks.rivals.pybit_client",
        "plain",
    ),
    Contender(
        "pybit+wsaccel",
        "The same with wsaccel installed, which websocket-client then uses.",
        "scripts.benchmarks.rivals.pybit_client",
        "wsaccel",
    ),
    Contender(
        "ccxt.pro",
        "One process, uvloop and orjson. Keeps sorted books and the last 1000 trades. With aiohttp "
        "below 3.14, because ccxt 4.5 stops reading with newer ones.",
        "scripts.benchmarks.rivals.ccxt_client",
    ),
    Contender(
        "cryptofeed",
        "One process on uvloop, compiled types, C order book; callbacks only count.",
        "scripts.benchmarks.rivals.cryptofeed_client",
        "callbacks",
    ),
    Contender(
        "cryptofeed+zmq",
        "Its ZeroMQ backend for books and trades, and one consumer that counts without decoding.",
        "scripts.benchmarks.rivals.cryptofeed_client",
        "zmq",
        reports_touch=False,
    ),
    Contender(
        "floor",
        "Two processes, every step in C: picows, msgspec, libzmq; a plain dict as book. No "
        "measures, counters, checks or restarts.",
        "scripts.benchmarks.rivals.floor",
        "dict",
    ),
    Contender(
        "floor+c-book",
        "The same with the C order_book package of cryptofeed (GPL, so only measured).",
        "scripts.benchmarks.rivals.floor",
        "c-book",
    ),
)

BY_NAME = {contender.name: contender for contender in CONTENDERS}


def builds(here: Path, other: Path) -> tuple[Contender, Contender]:
    """
    Return the build of this checkout and that of another one.

    Both run only through their ``bybit-pipeline`` command, so that the other checkout may have any
    layout.

    Raises:
        ValueError: If the other checkout has no ``.venv/bin/bybit-pipeline``.
    """
    command = other.resolve() / ".venv" / "bin" / "bybit-pipeline"
    if not command.is_file():
        raise ValueError(f"{command} does not exist; run scripts/up --help in that checkout first")
    return (
        Contender(THIS, _describe(here)),
        Contender(OTHER, _describe(other), command=str(command)),
    )


def _describe(checkout: Path) -> str:
    git = ["git", "-C", str(checkout), "log", "-1", "--format=%h %s"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return f"{checkout.resolve()}, {commit or 'not a git checkout'}"
