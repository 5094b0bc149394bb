"""The control messages, starts and stops that turn a running plan into the next one. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.supervisor.plan.placement import Placement
from bybit_pipeline.supervisor.plan.plan import Plan

Command = tuple[str, dict[str, Any]]
"""A process and the control message for it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """The steps from one plan to the next, to be taken in the order of the fields."""

    unsubscribe: tuple[Command, ...]
    """For connectors that lose topics but stay."""
    stop: tuple[str, ...]
    """Connectors without topics."""
    readers: tuple[Command, ...]
    """``unassign`` and ``assign``: workers listen before a new topic flows."""
    start: tuple[str, ...]
    """New connectors."""
    subscribe: tuple[Command, ...]
    """For connectors that were there before."""


def change(before: Plan, after: Plan) -> Change:
    """The steps from one plan to the next."""
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
