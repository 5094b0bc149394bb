"""
What the supervisor tells each process it starts: one JSON file a process in the run directory.

``python -m bybit_pipeline.processes.trades SPEC.json`` runs any process by hand with such a file.
"""

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from bybit_pipeline.shared.bybit import CONNECTOR_QUOTA, StreamKind
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.config import (
    ConnectorConfig,
    DensityConfig,
    OrderbookConfig,
    TradesConfig,
)
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.shared.wire.topics import market_topic

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One topic of the market bus: the trades, or the book at one depth, of one symbol."""

    kind: StreamKind
    category: Category
    symbol: str
    depth: int = 0
    """Of a book; 0 for trades."""

    @property
    def topic(self) -> str:
        """The market bus topic as text, such as ``book.linear.BTCUSDT``."""
        return f"{self.kind}.{self.category}.{self.symbol}"

    @property
    def topic_bytes(self) -> bytes:
        """The market bus topic with its terminator."""
        return market_topic(self.kind, self.category, self.symbol)


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that a worker handles, and the connector that publishes it."""

    stream: Stream
    connector: str
    endpoint: str


class ProcessSpec(msgspec.Struct, kw_only=True):
    """What every process is told."""

    process: str
    role: str
    run_dir: str
    control: str = ""
    """Endpoint of the supervisor's ROUTER; empty when run by hand."""
    prometheus_host: str = "127.0.0.1"
    prometheus_port: int = 0
    """A wish: 0, or taken, lets the operating system choose."""
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"


class ConnectorSpec(ProcessSpec, kw_only=True):
    """One Bybit socket: where it connects, what it subscribes, where it publishes."""

    category: Category
    url: str
    """With the category filled in."""
    source: Source
    market_endpoint: str
    """Where everybody may subscribe."""
    feed_endpoint: str
    """Where the workers are fed."""
    streams: list[Stream]
    settings: ConnectorConfig = ConnectorConfig()
    connect_quota: int = CONNECTOR_QUOTA
    """Connection attempts that it may make in 5 minutes."""
    silence_matters: bool = True
    """False in a replay, which falls silent at its end."""


class TradesSpec(ProcessSpec, kw_only=True):
    """A trades worker: its streams and its windows."""

    metrics_in: str
    assignments: list[Assignment]
    settings: TradesConfig = TradesConfig()
    per_symbol: bool = True


class OrderbookSpec(ProcessSpec, kw_only=True):
    """An orderbook worker: its books, the trades it needs to tell walls eaten from pulled."""

    metrics_in: str
    assignments: list[Assignment]
    settings: OrderbookConfig = OrderbookConfig()
    density: DensityConfig = DensityConfig()
    per_symbol: bool = True


class ForwarderSpec(ProcessSpec, kw_only=True):
    """The forwarder: where metrics come in and where subscribers connect."""

    metrics_in: str
    endpoint: str
    keys: str = ""
    """Directory of the CURVE keys of ``endpoint``; empty: it is open to who can reach it."""


class DashboardSpec(ProcessSpec, kw_only=True):
    """The page in the browser: where its numbers come from and where it is served."""

    metrics: str
    """The metrics socket, exact."""
    keys: str = ""
    """Directory of its CURVE keys; empty if it has none."""
    host: str = "127.0.0.1"
    port: int = 0
    windows: tuple[str, ...] = ()
    imbalance_levels: tuple[int, ...] = ()


class SimulatorSpec(ProcessSpec, kw_only=True):
    """The simulated exchange: what it serves."""

    port: int = 0
    symbols: dict[Category, list[str]] = {}
    with_default_instruments: bool = True
    seed: int = 1
    rate: float | None = None
    capture: str = ""
    speed: float = 1.0
    faults: list[str] = []
    script: str = ""


AnySpec = TypeVar("AnySpec", bound=ProcessSpec)


def write_spec(spec: ProcessSpec, path: Path) -> None:
    """Write a spec file, complete or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(spec), indent=2))
    partial.replace(path)


def read_spec(path: str | Path, kind: type[AnySpec]) -> AnySpec:
    """
    The spec in a file.

    Raises:
        ConfigError: If the file cannot be read or does not fit ``kind``.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error)) from error
    except msgspec.DecodeError as error:
        raise ConfigError(str(path), str(error)) from error
