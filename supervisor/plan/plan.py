"""
The plan: the processes of a pipeline, their endpoints, and the streams that each one handles.

Made from a valid configuration by ``make_plan`` and frozen: a runtime ``subscribe``, a new list of
instruments or another source makes a new plan. Starts nothing, reads no file, and knows processes
only by name.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bybit_pipeline.shared.bus.sockets import ipc_endpoint
from bybit_pipeline.shared.bybit import CONNECTOR_QUOTA, PIPELINE_QUOTA, STREAM_URLS, rest_url
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.specs import Assignment, LogFormat, LogLevel, Stream
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.supervisor.plan.names import (
    DASHBOARD,
    FORWARDER,
    SIMULATOR,
    category_of,
    fill_category,
    is_owner,
)
from bybit_pipeline.supervisor.plan.placement import (
    Placement,
    add_streams,
    remove_streams,
    worker_names,
)
from bybit_pipeline.supervisor.plan.universe import Universe, configured_universe


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is settled before a process starts, and the source in force."""

    config: Config
    run_dir: str
    """Absolute path."""
    source: Source
    url: str
    """Address that connectors use, with ``{category}``; empty until the simulator announces it."""
    has_simulator: bool
    placements: tuple[Placement, ...] = ()
    """One for every stream of ``universe``."""
    universe: Universe = field(default_factory=Universe)
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    # -- processes -------------------------------------------------------------------------------

    @property
    def connectors(self) -> list[str]:
        """Names of the connectors, each once, in the order of their streams."""
        return list(dict.fromkeys(placement.connector for placement in self.placements))

    @property
    def workers(self) -> list[str]:
        """Names of the trades workers, then of the orderbook workers, idle ones included."""
        return worker_names(self.config, "trades") + worker_names(self.config, "orderbook")

    @property
    def processes(self) -> list[str]:
        """Names of all children in the order in which they are started."""
        simulator = [SIMULATOR] if self.has_simulator else []
        dashboard = [DASHBOARD] if self.config.dashboard.enabled else []
        return [FORWARDER, *dashboard, *self.workers, *simulator, *self.connectors]

    @property
    def first_category(self) -> Category:
        """Category used to probe the exchange."""
        names = [category_of(connector) for connector in self.connectors]
        return (names or [choice.category for choice in self.universe.patterns])[0]

    @property
    def connect_quota(self) -> int:
        """Connection attempts that each connector may make in 5 minutes."""
        return max(1, min(CONNECTOR_QUOTA, PIPELINE_QUOTA // max(1, len(self.connectors))))

    # -- endpoints -------------------------------------------------------------------------------

    @property
    def control_endpoint(self) -> str:
        """Endpoint of the supervisor's ROUTER."""
        return ipc_endpoint(f"{self.run_dir}/control.ipc")

    @property
    def metrics_in(self) -> str:
        """Endpoint on which the forwarder receives metrics."""
        return ipc_endpoint(f"{self.run_dir}/metrics.ipc")

    @property
    def keys(self) -> str | None:
        """Directory of the metrics socket's keys; None without CURVE."""
        security = self.config.security
        return security.keys if security.curve else None

    def market_endpoint(self, connector: str) -> str:
        """Endpoint on which a connector publishes for everybody."""
        return ipc_endpoint(f"{self.run_dir}/{connector.removeprefix('connector-')}.ipc")

    def feed_endpoint(self, connector: str) -> str:
        """Endpoint on which a connector feeds the workers."""
        return ipc_endpoint(f"{self.run_dir}/{connector.removeprefix('connector-')}.feed")

    def connector_url(self, connector: str) -> str:
        """Address that a connector uses; empty until the simulator announces it."""
        return fill_category(self.url, category_of(connector))

    @property
    def live_url(self) -> str:
        """The exchange's address, with ``{category}``."""
        return self.config.url or STREAM_URLS[self.config.network]

    @property
    def rest_url(self) -> str:
        """REST address of the source in force; empty until the simulator announces its address."""
        is_embedded = self.has_simulator and self.url != self.live_url
        if self.config.instruments.url and not is_embedded:
            return self.config.instruments.url.rstrip("/")
        return rest_url(fill_category(self.url, "linear"))

    # -- streams ---------------------------------------------------------------------------------

    def streams_of(self, connector: str) -> list[Stream]:
        """The streams that a connector subscribes."""
        return [p.stream for p in self.placements if p.connector == connector]

    def assignments_of(self, worker: str) -> list[Assignment]:
        """The streams that a worker reads."""
        return [self.assignment(p) for p in self.placements if worker in p.workers]

    def own_streams(self, worker: str) -> Iterator[Stream]:
        """The streams about which a worker publishes metrics, not those that it only reads."""
        for placement in self.placements:
            if worker in placement.workers and is_owner(worker, placement.stream):
                yield placement.stream

    def connector_of(self, topic: str) -> str | None:
        """The connector of a bus topic such as ``book.linear.BTCUSDT``, if it is in the plan."""
        for placement in self.placements:
            if placement.stream.topic == topic:
                return placement.connector
        return None

    def assignment(self, placement: Placement) -> Assignment:
        """The assignment of a placed stream to its workers."""
        return Assignment(
            stream=placement.stream,
            connector=placement.connector,
            endpoint=self.feed_endpoint(placement.connector),
        )

    # -- changes ---------------------------------------------------------------------------------

    def with_streams(self, streams: Iterable[Stream]) -> "Plan":
        """The plan with more streams placed; the present ones stay as they are."""
        placements = add_streams(self.config, self.placements, streams)
        return dataclasses.replace(self, placements=placements)

    def without_streams(self, topics: Iterable[str]) -> "Plan":
        """The plan without some bus topics."""
        placements = remove_streams(self.config, self.placements, topics)
        return dataclasses.replace(self, placements=placements)

    def with_universe(self, universe: Universe) -> "Plan":
        """The plan for another universe; streams that are in both stay as they are."""
        plan, wanted = self, universe.streams()
        kept = set(wanted)
        gone = [p.stream.topic for p in self.placements if p.stream not in kept]
        if gone or len(wanted) > len(self.placements):
            plan = self.without_streams(gone).with_streams(wanted)
        return dataclasses.replace(plan, universe=universe)


def make_plan(
    config: Config, *, run_dir: str, log_format: LogFormat = "auto", log_level: LogLevel = "info"
) -> Plan:
    """
    The plan of a configuration, ready to start.

    ``auto`` starts with the live address. ``sim`` and ``replay`` start the simulator, unless
    ``url`` is given.

    Raises:
        ConfigError: If ``url`` cannot serve every category of the markets, or both ``url`` and a
            capture are given.
    """
    _check_url(config)
    embedded = config.source in ("sim", "replay") and not config.url
    empty = Plan(
        config=config,
        run_dir=run_dir,
        source="live" if config.source == "auto" else config.source,
        url="" if embedded else config.url or STREAM_URLS[config.network],
        has_simulator=embedded,
        log_format=log_format,
        log_level=log_level,
    )
    return empty.with_universe(configured_universe(config.market))


def _check_url(config: Config) -> None:
    categories = sorted({market.category for market in config.market})
    if config.url and "{category}" not in config.url and len(categories) > 1:
        raise ConfigError(
            "url",
            f"one address cannot serve {' and '.join(categories)}",
            "an address with {category} in it",
        )
    if config.url and config.source == "replay" and config.replay.capture:
        raise ConfigError("url", "an address and a capture at once", "one of url, replay.capture")
