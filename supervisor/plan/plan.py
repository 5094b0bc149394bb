"""
The plan: which process handles which stream, and what each process is told.

Decides, from a valid configuration, how topics are spread over connectors and workers, where every
endpoint is, and what a runtime ``subscribe`` or ``unsubscribe`` changes. Starts nothing, reads no
file, and knows processes only by role and module name.

The spread is stable: a stream that is placed never moves, whatever is added or removed later.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from bybit_pipeline.shared.bus.sockets import ipc_endpoint
from bybit_pipeline.shared.bybit import (
    CONNECTOR_QUOTA,
    PIPELINE_QUOTA,
    STREAM_URLS,
    TOPIC_CHARACTERS_MAX,
    book_topic,
    rest_url,
    topic_characters,
    trades_topic,
)
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.specs import (
    Assignment,
    ConnectorSpec,
    DashboardSpec,
    ForwarderSpec,
    LogFormat,
    LogLevel,
    OrderbookSpec,
    ProcessSpec,
    SimulatorSpec,
    Stream,
    TradesSpec,
)
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.supervisor.plan.universe import Universe, configured_selection

FORWARDER = "forwarder"
DASHBOARD = "dashboard"
SIMULATOR = "simulator"
PROCESS_NAME = re.compile(
    r"forwarder|dashboard|simulator|(?:trades|orderbook)-\d+|connector-(?:spot|linear|inverse|option)-\d+"
)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One stream, the connector that publishes it and the workers that read it."""

    stream: Stream
    connector: str
    workers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is settled before a process starts, and the source in force."""

    config: Config
    run_dir: str
    """Absolute."""
    source: Source
    url: str
    """Where connectors connect, ``{category}`` not filled in; empty until a simulator says."""
    has_simulator: bool
    placements: tuple[Placement, ...] = ()
    selection: Universe = field(default_factory=Universe)
    """What is asked for; ``placements`` are the streams of it."""
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    # -- names -----------------------------------------------------------------------------------

    @property
    def connectors(self) -> list[str]:
        """Names of the connectors, each once, in the order of their streams."""
        return list(dict.fromkeys(placement.connector for placement in self.placements))

    @property
    def workers(self) -> list[str]:
        """Names of the trades workers, then of the orderbook workers; also of idle ones."""
        return _worker_names(self.config, "trades") + _worker_names(self.config, "orderbook")

    @property
    def processes(self) -> list[str]:
        """Names of all children in the order in which they are started."""
        simulator = [SIMULATOR] if self.has_simulator else []
        dashboard = [DASHBOARD] if self.config.dashboard.enabled else []
        return [FORWARDER, *dashboard, *self.workers, *simulator, *self.connectors]

    @property
    def first_category(self) -> Category:
        """Where somebody asks who wants to know whether the exchange answers."""
        names = [category_of(connector) for connector in self.connectors]
        return (names or [choice.category for choice in self.selection.choices])[0]

    # -- endpoints -------------------------------------------------------------------------------

    @property
    def control_endpoint(self) -> str:
        """Where the supervisor's ROUTER is bound."""
        return ipc_endpoint(f"{self.run_dir}/control.ipc")

    @property
    def metrics_in(self) -> str:
        """Where the forwarder gathers metrics."""
        return ipc_endpoint(f"{self.run_dir}/metrics.ipc")

    @property
    def keys(self) -> str | None:
        """Directory of the metrics socket's keys; None without CURVE."""
        security = self.config.security
        return security.keys if security.curve else None

    def market_endpoint(self, connector: str) -> str:
        """Where a connector publishes for everybody."""
        return ipc_endpoint(f"{self.run_dir}/{connector.removeprefix('connector-')}.ipc")

    def feed_endpoint(self, connector: str) -> str:
        """Where a connector feeds the workers."""
        return ipc_endpoint(f"{self.run_dir}/{connector.removeprefix('connector-')}.feed")

    @property
    def live_url(self) -> str:
        """The exchange's address, ``{category}`` not filled in."""
        return self.config.url or STREAM_URLS[self.config.network]

    @property
    def rest_url(self) -> str:
        """Where the list of instruments of the source in force is; empty until a simulator says."""
        is_embedded = self.has_simulator and self.url != self.live_url
        if self.config.instruments.url and not is_embedded:
            return self.config.instruments.url.rstrip("/")
        return rest_url(fill_category(self.url, "linear"))

    # -- streams ---------------------------------------------------------------------------------

    def streams_of(self, connector: str) -> list[Stream]:
        """What a connector subscribes."""
        return [p.stream for p in self.placements if p.connector == connector]

    def assignments_of(self, worker: str) -> list[Assignment]:
        """What a worker follows."""
        return [self.assignment(p) for p in self.placements if worker in p.workers]

    @property
    def share(self) -> int:
        """Connections that each connector may open in 5 minutes."""
        return max(1, min(CONNECTOR_QUOTA, PIPELINE_QUOTA // max(1, len(self.connectors))))

    def connector_of(self, topic: str) -> str | None:
        """The connector of a bus topic such as ``book.linear.BTCUSDT``, if it is in the plan."""
        for placement in self.placements:
            if placement.stream.topic == topic:
                return placement.connector
        return None

    def assignment(self, placement: Placement) -> Assignment:
        """What a worker needs to follow the stream."""
        return Assignment(
            stream=placement.stream,
            connector=placement.connector,
            endpoint=self.feed_endpoint(placement.connector),
        )

    # -- what each process is told ---------------------------------------------------------------

    def spec(self, process: str, *, prometheus_port: int = 0) -> ProcessSpec:
        """
        The spec of one child.

        Args:
            process: One of ``processes``.
            prometheus_port: Where it should be scraped; 0 lets the operating system choose.
        """
        role = role_of(process)
        common: dict[str, Any] = {
            "process": process,
            "role": role,
            "run_dir": self.run_dir,
            "control": self.control_endpoint,
            "prometheus_host": self.config.prometheus.host,
            "prometheus_port": prometheus_port,
            "log_format": self.log_format,
            "log_level": self.log_level,
        }
        make = {
            "connector": self._connector_spec,
            "trades": self._trades_spec,
            "orderbook": self._orderbook_spec,
            "forwarder": self._forwarder_spec,
            "dashboard": self._dashboard_spec,
            "simulator": self._simulator_spec,
        }[role]
        return make(common)

    def _connector_spec(self, common: dict[str, Any]) -> ConnectorSpec:
        name = common["process"]
        category = category_of(name)
        return ConnectorSpec(
            **common,
            category=category,
            url=fill_category(self.url, category),
            source=self.source,
            market_endpoint=self.market_endpoint(name),
            feed_endpoint=self.feed_endpoint(name),
            streams=self.streams_of(name),
            settings=self.config.connector,
            share=self.share,
            silence_matters=self.source != "replay",
        )

    def _trades_spec(self, common: dict[str, Any]) -> TradesSpec:
        return TradesSpec(
            **common,
            metrics_in=self.metrics_in,
            assignments=self.assignments_of(common["process"]),
            settings=self.config.trades,
            per_symbol=self.config.prometheus.per_symbol,
        )

    def _orderbook_spec(self, common: dict[str, Any]) -> OrderbookSpec:
        return OrderbookSpec(
            **common,
            metrics_in=self.metrics_in,
            assignments=self.assignments_of(common["process"]),
            settings=self.config.orderbook,
            density=self.config.density,
            per_symbol=self.config.prometheus.per_symbol,
        )

    def _forwarder_spec(self, common: dict[str, Any]) -> ForwarderSpec:
        return ForwarderSpec(
            **common,
            metrics_in=self.metrics_in,
            endpoint=self.config.metrics.endpoint,
            keys=self.keys or "",
        )

    def _dashboard_spec(self, common: dict[str, Any]) -> DashboardSpec:
        """Its address of the metrics is exact once the forwarder is up; the household knows."""
        return DashboardSpec(
            **common,
            metrics=self.config.metrics.endpoint,
            keys=self.keys or "",
            host=self.config.dashboard.host,
            port=self.config.dashboard.port,
            windows=self.config.trades.windows,
            imbalance_levels=self.config.orderbook.imbalance_levels,
        )

    def _simulator_spec(self, common: dict[str, Any]) -> SimulatorSpec:
        symbols: dict[Category, list[str]] = {}
        for stream in self.selection.named:  # patterns take what it lists by itself
            listed = symbols.setdefault(stream.category, [])
            if stream.symbol not in listed:
                listed.append(stream.symbol)
        replay = self.config.replay if self.config.source == "replay" else None
        return SimulatorSpec(
            **common,
            symbols=symbols,
            capture=replay.capture if replay else "",
            speed=replay.speed if replay else 1.0,
        )


def make_plan(
    config: Config, *, run_dir: str, log_format: LogFormat = "auto", log_level: LogLevel = "info"
) -> Plan:
    """
    The plan of a configuration, ready to start.

    ``auto`` starts on the live address; ``sim`` and ``replay`` start the simulator, unless ``url``
    says where to connect.

    Raises:
        ConfigError: If ``url`` cannot serve every category of the markets, or a capture is to be
            played to another address.
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
    return with_selection(empty, configured_selection(config.market))


def exchange_topic(stream: Stream) -> str:
    """The topic on which Bybit serves a stream; option trades of one base coin share a topic."""
    if stream.kind == "book":
        return book_topic(stream.symbol, stream.depth)
    return trades_topic(stream.category, stream.symbol)


def role_of(process: str) -> str:
    """The role in a process name: ``connector-linear-0`` is a ``connector``."""
    return process.split("-")[0]


def category_of(connector: str) -> Category:
    """The category in a connector's name."""
    return cast(Category, connector.split("-")[1])


def fill_category(url: str, category: str) -> str:
    """The address with ``{category}`` filled in."""
    return url.replace("{category}", category)


# -- placing -----------------------------------------------------------------------------------


def with_streams(plan: Plan, streams: Iterable[Stream]) -> Plan:
    """
    The plan with more streams; those it has already stay as they are.

    A symbol's streams stay on one connector where they fit, and all trades of options of one base
    coin always do, since they are one topic of the exchange. Workers get streams evenly: each goes
    to the one that has fewest. A book's worker also reads the trades of its symbol.
    """
    known = {placement.stream.topic for placement in plan.placements}
    new = [stream for stream in streams if stream.topic not in known]
    by_symbol: dict[tuple[str, str], list[Stream]] = {}
    for stream in new:
        by_symbol.setdefault((stream.category, stream.symbol), []).append(stream)
    layout = _Layout(plan)
    for unit in by_symbol.values():
        layout.place(unit)
    return _with_readers(plan, layout.connector_of)


def with_selection(plan: Plan, selection: Universe) -> Plan:
    """The plan for what is asked for; what it has of that already stays as it is."""
    wanted = selection.streams()
    kept = set(wanted)
    gone = [p.stream.topic for p in plan.placements if p.stream not in kept]
    if gone or len(wanted) > len(plan.placements):
        plan = with_streams(without_streams(plan, gone), wanted)
    return dataclasses.replace(plan, selection=selection)


def without_streams(plan: Plan, topics: Iterable[str]) -> Plan:
    """The plan without some bus topics; a connector without any topic left is gone as well."""
    gone = set(topics)
    kept = {p.stream: p.connector for p in plan.placements if p.stream.topic not in gone}
    return _with_readers(plan, kept)


class _Layout:
    """Connectors while streams are laid out: which exchange topics each has."""

    def __init__(self, plan: Plan) -> None:
        self.connector_of = {p.stream: p.connector for p in plan.placements}
        self._limit = plan.config.connector.topics_per_socket
        self._topics: dict[str, set[str]] = {}
        for stream, connector in self.connector_of.items():
            self._topics.setdefault(connector, set()).add(exchange_topic(stream))

    def place(self, unit: list[Stream]) -> None:
        """Place the new streams of one symbol."""
        category = unit[0].category
        for stream in list(unit):
            home = self._holder(category, exchange_topic(stream))
            if home is not None:
                self._put(stream, home)
                unit = [other for other in unit if other is not stream]
        if not unit:
            return
        connector = self._first_fit(unit)
        if connector is not None or len(unit) <= self._limit:
            connector = connector or self._new_connector(category)
            for stream in unit:
                self._put(stream, connector)
        else:
            for stream in unit:
                self._put(stream, self._first_fit([stream]) or self._new_connector(category))

    def _holder(self, category: str, topic: str) -> str | None:
        for connector in self._of_category(category):
            if topic in self._topics[connector]:
                return connector
        return None

    def _first_fit(self, unit: list[Stream]) -> str | None:
        category, symbol = unit[0].category, unit[0].symbol
        siblings = {
            connector
            for stream, connector in self.connector_of.items()
            if (stream.category, stream.symbol) == (category, symbol)
        }
        candidates = sorted(self._of_category(category), key=lambda name: name not in siblings)
        return next((name for name in candidates if self._fits(unit, name)), None)

    def _fits(self, unit: list[Stream], connector: str) -> bool:
        topics = self._topics[connector] | {exchange_topic(stream) for stream in unit}
        return len(topics) <= self._limit and topic_characters(topics) <= TOPIC_CHARACTERS_MAX

    def _of_category(self, category: str) -> Iterator[str]:
        return (name for name in self._topics if category_of(name) == category)

    def _new_connector(self, category: str) -> str:
        number = 0
        while (name := f"connector-{category}-{number}") in self._topics:
            number += 1
        self._topics[name] = set()
        return name

    def _put(self, stream: Stream, connector: str) -> None:
        self.connector_of[stream] = connector
        self._topics[connector].add(exchange_topic(stream))


def _with_readers(plan: Plan, connector_of: Mapping[Stream, str]) -> Plan:
    """The plan with these streams; workers keep the streams they have and share the new ones."""
    owner = {p.stream: p.workers[0] for p in plan.placements if p.stream in connector_of}
    load = Counter(owner.values())
    for stream in connector_of:
        if stream not in owner:
            role = "trades" if stream.kind == "trade" else "orderbook"
            owner[stream] = min(_worker_names(plan.config, role), key=lambda name: load[name])
            load[owner[stream]] += 1
    book_owner = {(s.category, s.symbol): w for s, w in owner.items() if s.kind == "book"}
    placements = []
    for stream, connector in connector_of.items():
        workers = [owner[stream]]
        follower = book_owner.get((stream.category, stream.symbol))
        if stream.kind == "trade" and follower is not None:
            workers.append(follower)
        placements.append(Placement(stream=stream, connector=connector, workers=tuple(workers)))
    return dataclasses.replace(plan, placements=tuple(placements))


def _worker_names(config: Config, role: str) -> list[str]:
    count = config.workers.trades if role == "trades" else config.workers.orderbook
    return [f"{role}-{number}" for number in range(count)]


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


# -- changing a running pipeline ---------------------------------------------------------------

Command = tuple[str, dict[str, Any]]
"""A process and the control message for it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What turns one plan into the next: do the parts in the order of the fields."""

    unsubscribe: tuple[Command, ...]
    """To connectors that lose topics but stay."""
    stop: tuple[str, ...]
    """Connectors without a topic left."""
    readers: tuple[Command, ...]
    """``unassign`` and ``assign``: workers listen before a new topic flows."""
    start: tuple[str, ...]
    """New connectors."""
    subscribe: tuple[Command, ...]
    """To connectors that were there before."""


def change(before: Plan, after: Plan) -> Change:
    """What a running pipeline must do to get from one plan to the next."""
    old = {(p.stream, p.connector): None for p in before.placements}
    new = {(p.stream, p.connector): None for p in after.placements}
    stay = set(before.connectors) & set(after.connectors)
    return Change(
        unsubscribe=_stream_commands("unsubscribe", (key for key in old if key not in new), stay),
        stop=tuple(name for name in before.connectors if name not in stay),
        readers=tuple(_reader_commands(before, after)),
        start=tuple(name for name in after.connectors if name not in stay),
        subscribe=_stream_commands("subscribe", (key for key in new if key not in old), stay),
    )


def _stream_commands(
    kind: str, placed: Iterable[tuple[Stream, str]], stay: set[str]
) -> tuple[Command, ...]:
    by_connector: dict[str, list[Any]] = {}
    for stream, connector in placed:
        if connector in stay:
            by_connector.setdefault(connector, []).append(msgspec.to_builtins(stream))
    return tuple(
        (connector, {"type": kind, "streams": streams})
        for connector, streams in by_connector.items()
    )


def _reader_commands(before: Plan, after: Plan) -> Iterator[Command]:
    old, new = _readers(before), _readers(after)
    for key, placement in old.items():
        if key not in new:
            yield key[0], {"type": "unassign", "topic": placement.stream.topic}
    for key, placement in new.items():
        if key not in old:
            assignment = msgspec.to_builtins(after.assignment(placement))
            yield key[0], {"type": "assign", "assignment": assignment}


def _readers(plan: Plan) -> dict[tuple[str, Stream, str], Placement]:
    return {(worker, p.stream, p.connector): p for p in plan.placements for worker in p.workers}
