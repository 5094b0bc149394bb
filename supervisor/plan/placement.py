"""
Placement: which connector publishes each stream, and which workers read it. Pure.

Placement is stable: a placed stream never moves, whatever is added or removed later.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bybit_pipeline.shared.bybit import TOPIC_CHARACTERS_MAX, topic_characters
from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.supervisor.plan.names import category_of, exchange_topic


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One stream, the connector that publishes it and the workers that read it."""

    stream: Stream
    connector: str
    workers: tuple[str, ...]
    """The first one publishes the metrics of the stream; the others only read it."""


def add_streams(
    config: Config, placements: Sequence[Placement], streams: Iterable[Stream]
) -> tuple[Placement, ...]:
    """
    Place more streams; ignore those that are placed already.

    All streams of a symbol go to one connector if they fit. All option trades of one base coin go
    to one connector, because they are one topic of the exchange. Each stream goes to the worker
    with the fewest streams. The worker of a book also reads the trades of its symbol.
    """
    known = {placement.stream.topic for placement in placements}
    new = [stream for stream in streams if stream.topic not in known]
    by_symbol: dict[tuple[str, str], list[Stream]] = {}
    for stream in new:
        by_symbol.setdefault((stream.category, stream.symbol), []).append(stream)
    layout = _Layout(placements, topics_max=config.connector.topics_per_socket)
    for group in by_symbol.values():
        layout.add(group)
    return _assign_workers(config, placements, layout.connector_of)


def remove_streams(
    config: Config, placements: Sequence[Placement], topics: Iterable[str]
) -> tuple[Placement, ...]:
    """Remove bus topics; a connector without topics disappears as well."""
    removed = set(topics)
    kept = {p.stream: p.connector for p in placements if p.stream.topic not in removed}
    return _assign_workers(config, placements, kept)


def worker_names(config: Config, role: str) -> list[str]:
    """Names of the configured workers of a role, ``trades`` or ``orderbook``."""
    count = config.workers.trades if role == "trades" else config.workers.orderbook
    return [f"{role}-{number}" for number in range(count)]


class _Layout:
    """The exchange topics of each connector, while new streams are added."""

    def __init__(self, placements: Iterable[Placement], *, topics_max: int) -> None:
        self.connector_of = {p.stream: p.connector for p in placements}
        self._topics_max = topics_max
        self._topics: dict[str, set[str]] = {}
        for stream, connector in self.connector_of.items():
            self._topics.setdefault(connector, set()).add(exchange_topic(stream))

    def add(self, group: list[Stream]) -> None:
        """Add the new streams of one symbol."""
        category = group[0].category
        for stream in list(group):
            connector = self._with_topic(category, exchange_topic(stream))
            if connector is not None:
                self._put(stream, connector)
                group = [other for other in group if other is not stream]
        if not group:
            return
        connector = self._first_fit(group)
        if connector is not None or len(group) <= self._topics_max:
            connector = connector or self._new_connector(category)
            for stream in group:
                self._put(stream, connector)
        else:
            for stream in group:
                self._put(stream, self._first_fit([stream]) or self._new_connector(category))

    def _with_topic(self, category: str, topic: str) -> str | None:
        for connector in self._of_category(category):
            if topic in self._topics[connector]:
                return connector
        return None

    def _first_fit(self, group: list[Stream]) -> str | None:
        """The first connector with room for the group; those that have the symbol first."""
        category, symbol = group[0].category, group[0].symbol
        siblings = {
            connector
            for stream, connector in self.connector_of.items()
            if (stream.category, stream.symbol) == (category, symbol)
        }
        candidates = sorted(self._of_category(category), key=lambda name: name not in siblings)
        return next((name for name in candidates if self._fits(group, name)), None)

    def _fits(self, group: list[Stream], connector: str) -> bool:
        topics = self._topics[connector] | {exchange_topic(stream) for stream in group}
        return len(topics) <= self._topics_max and topic_characters(topics) <= TOPIC_CHARACTERS_MAX

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


def _assign_workers(
    config: Config, placements: Iterable[Placement], connector_of: Mapping[Stream, str]
) -> tuple[Placement, ...]:
    """Placements for these streams; workers keep their streams, and the new ones are spread."""
    owner = {p.stream: p.workers[0] for p in placements if p.stream in connector_of}
    load = Counter(owner.values())
    for stream in connector_of:
        if stream not in owner:
            role = "trades" if stream.kind == "trade" else "orderbook"
            owner[stream] = min(worker_names(config, role), key=lambda name: load[name])
            load[owner[stream]] += 1
    book_owner = {(s.category, s.symbol): w for s, w in owner.items() if s.kind == "book"}
    placed = []
    for stream, connector in connector_of.items():
        workers = [owner[stream]]
        book_worker = book_owner.get((stream.category, stream.symbol))
        if stream.kind == "trade" and book_worker is not None:
            workers.append(book_worker)
        placed.append(Placement(stream=stream, connector=connector, workers=tuple(workers)))
    return tuple(placed)
