"""
Specs: the settings of each child, as a JSON file in the run directory.

``python -m bybit_pipeline.processes.trades SPEC.json`` runs one process by hand.
"""

import re
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from bybit_pipeline.shared.bybit import CONNECTOR_QUOTA, StreamKind
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.files import DISK_FULL, replace_file
from bybit_pipeline.shared.settings.config import (
    ConnectorConfig,
    DensityConfig,
    OrderbookConfig,
    TradesConfig,
)
from bybit_pipeline.shared.wire.gaps import BookGap, TradesGap
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
    """Levels per side of a book; 0 for trades."""
    stale_after_s: float = 0.0
    """Longest plausible silence in seconds; 0 to derive it from the stream."""

    @property
    def topic(self) -> str:
        """Topic on the market bus as text, such as ``book.linear.BTCUSDT``."""
        return f"{self.kind}.{self.category}.{self.symbol}"

    @property
    def topic_bytes(self) -> bytes:
        """Topic on the market bus with its terminator."""
        return market_topic(self.kind, self.category, self.symbol)


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that a worker handles, and the connector that publishes it."""

    stream: Stream
    connector: str
    endpoint: str
    gap: BookGap | TradesGap | None = None
    """An open gap of the stream that an earlier process could not close."""


class ProcessSpec(msgspec.Struct, kw_only=True):
    """Settings of every process."""

    process: str
    role: str
    run_dir: str
    control: str = ""
    """Endpoint of the supervisor's ROUTER; empty if the process runs by hand."""
    prometheus_host: str = "127.0.0.1"
    prometheus_port: int = 0
    """Preferred port; if it is 0 or taken, the operating system chooses."""
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"


class ConnectorSpec(ProcessSpec, kw_only=True):
    """A connector: one websocket, its topics, and the endpoints to publish on."""

    category: Category
    url: str
    """Websocket address, with the category filled in."""
    source: Source
    market_endpoint: str
    """Endpoint of the market bus, for any subscriber."""
    feed_endpoint: str
    """Endpoint of the feed, for the workers."""
    streams: list[Stream]
    settings: ConnectorConfig = ConnectorConfig()
    connect_quota: int = CONNECTOR_QUOTA
    """Connection attempts allowed in 5 minutes."""
    silence_matters: bool = True
    """False in a replay, which is silent after its end."""


class TradesSpec(ProcessSpec, kw_only=True):
    """A trades worker."""

    metrics_in: str
    assignments: list[Assignment]
    last_gap_id: int = 0
    """Number below the ids of all gaps of this process."""
    settings: TradesConfig = TradesConfig()
    per_symbol: bool = True


class OrderbookSpec(ProcessSpec, kw_only=True):
    """An orderbook worker. It also receives trades, to tell eaten walls from pulled ones."""

    metrics_in: str
    assignments: list[Assignment]
    last_gap_id: int = 0
    """Number below the ids of all gaps of this process."""
    settings: OrderbookConfig = OrderbookConfig()
    density: DensityConfig = DensityConfig()
    per_symbol: bool = True


class ForwarderSpec(ProcessSpec, kw_only=True):
    """The forwarder: the endpoint for workers, and the one for subscribers."""

    metrics_in: str
    endpoint: str
    keys: str = ""
    """Directory of the CURVE keys of ``endpoint``; empty: no keys are needed."""


class DashboardSpec(ProcessSpec, kw_only=True):
    """The page in the browser: the source of its numbers, and its address."""

    metrics: str
    """Exact endpoint of the metrics socket."""
    keys: str = ""
    """Directory of the CURVE keys of ``metrics``; empty if it has none."""
    host: str = "127.0.0.1"
    port: int = 0
    windows: tuple[str, ...] = ()
    imbalance_levels: tuple[int, ...] = ()


class SimulatorSpec(ProcessSpec, kw_only=True):
    """The simulated exchange."""

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
    """
    Write a spec file completely or not at all.

    On a full disk an existing file is overwritten in its place, which needs no more space: a
    process must be restarted also then. Nobody reads the file before its process is started.

    Raises:
        OSError: If it cannot be written.
    """
    content = msgspec.json.format(msgspec.json.encode(spec), indent=2)
    try:
        replace_file(path, content)
    except OSError as error:
        if error.errno not in DISK_FULL or not path.exists():
            raise
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()


def read_spec(path: str | Path, kind: type[AnySpec]) -> AnySpec:
    """
    Read a spec file.

    Raises:
        ConfigError: If the file cannot be read or is not a spec of this kind.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(str(path), error.strerror or "cannot be read") from error
    except msgspec.ValidationError as error:
        key = re.search(r"at `\$\.?(.*)`|field `(.*)`", str(error))
        where = f": {key[1] or key[2]} is missing or has a wrong value" if key else ""
        raise ConfigError(str(path), f"not a {kind.__name__}{where}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(str(path), "not JSON") from error
