"""
Requests of command lines: parse them, answer them, change the plan.

Commands are ``status``, ``answers``, ``subscribe``, ``unsubscribe`` and ``gaps``. The supervisor
implements ``Pipeline``, through which a request sees and changes the running pipeline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from bybit_pipeline.shared.errors import (
    EX_USAGE,
    NoPipelineError,
    PipelineError,
)
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.supervisor.plan.market_args import (
    markets_of,
    streams_of,
    subscribe,
    unsubscribe,
)
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.status.pending import PendingSubscriptions, TopicState
from bybit_pipeline.supervisor.status.router import ControlRouter, Envelope
from bybit_pipeline.supervisor.status.snapshot import Snapshot

log = structlog.get_logger()


class Pipeline(Protocol):
    """The running pipeline, as requests see and change it."""

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        ...

    @property
    def is_running(self) -> bool:
        """False once the pipeline stops."""
        ...

    def gaps(self) -> dict[str, Any]:
        """Return the newest gaps, those that are not written yet, and the state directory."""
        ...

    def refresh(self) -> Snapshot:
        """Make a new snapshot."""
        ...

    def change_plan(self, plan: Plan) -> None:
        """Bring the pipeline to another plan."""
        ...


class RequestError(PipelineError):
    """A request that is not understood."""

    exit_code = EX_USAGE


class _Request(msgspec.Struct, frozen=True):
    id: str | int
    command: str
    arguments: dict[str, Any] = {}


class _MarketArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``subscribe`` and ``unsubscribe``."""

    markets: list[str]


class _TopicArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``answers``: bus topics."""

    topics: list[str]


_Record = TypeVar("_Record", bound=msgspec.Struct)


class RequestHandler:
    """
    Answers the requests of command lines.

    Args:
        pipeline: The running pipeline.
        router: Where replies are sent; counts unusable requests.
        telemetry: Registry of the counter.
    """

    def __init__(self, pipeline: Pipeline, router: ControlRouter, telemetry: Telemetry) -> None:
        self._pipeline = pipeline
        self._router = router
        self._pending = PendingSubscriptions()
        self._rejections = telemetry.counter(
            "subscriptions_refused_total",
            "Topics that were subscribed at runtime and rejected by the exchange.",
        )

    def handle(self, envelope: Envelope) -> None:
        """Reply to a request."""
        try:
            request = _record(envelope.message, _Request, "a request has an id and a command")
            result = self._result(request)
        except PipelineError as error:
            if isinstance(error, RequestError):
                self._router.invalid["content"] += 1
            self._router.send(envelope.sender, _error_reply(envelope.message.get("id"), error))
        else:
            self._router.send(envelope.sender, _reply(request.id, result))

    def drop_rejected(self, connector: str, status: Mapping[str, Any]) -> None:
        """Unsubscribe what was subscribed at runtime and the exchange has rejected."""
        plan = self._pipeline.plan
        streams = self._pending.update(plan, connector, status)
        if streams:
            self._rejections.value += len(streams)
            log.warning(
                "subscriptions rejected by the exchange, removed",
                topics=[stream.topic for stream in streams],
            )
            self._pipeline.change_plan(plan.with_universe(plan.universe.without_named(streams)))

    def _result(self, request: _Request) -> dict[str, Any]:
        if request.command == "gaps":
            return self._pipeline.gaps()
        if not self._pipeline.is_running:
            raise NoPipelineError("the pipeline is stopping")
        match request.command:
            case "status":
                return self._pipeline.refresh().status
            case "answers":
                topics = _record(
                    request.arguments, _TopicArguments, "answers has a list of topics"
                ).topics
                return {"answers": self._topic_states(self._pipeline.refresh(), topics)}
            case "subscribe" | "unsubscribe":
                markets = _record(
                    request.arguments, _MarketArguments, f"{request.command} has a list of markets"
                ).markets
                return self._change_markets(request.command, markets)
            case _:
                raise RequestError(f"unknown command {request.command!r}")

    def _change_markets(self, command: str, words: list[str]) -> dict[str, Any]:
        before = self._pipeline.plan
        is_joining = command == "subscribe"
        after = subscribe(before, words) if is_joining else unsubscribe(before, words)
        log.info("markets changed", command=command, markets=words)
        named = set(before.universe.named)
        self._pending.start(s for s in after.universe.named if s not in named)
        self._pipeline.change_plan(after)
        markets = markets_of(before, words)
        plan = after if is_joining else before
        return {
            "topics": [
                {
                    "process": plan.connector_of(stream.topic),
                    "topic": exchange_topic(stream),
                    "bus_topic": stream.topic,
                }
                for market in markets
                if not market.is_pattern
                for stream in streams_of(plan, market)
            ],
            "patterns": [str(market) for market in markets if market.is_pattern],
            "symbols": abs(len(_symbols(after)) - len(_symbols(before))),
        }

    def _topic_states(self, snapshot: Snapshot, topics: Sequence[str]) -> dict[str, Any]:
        """State and reason of bus topics, as far as the exchange has answered."""
        placements = {p.stream.topic: p for p in self._pipeline.plan.placements}
        connectors = {entry["process"]: entry for entry in snapshot.status["connectors"]}
        states = {}
        for topic in topics:
            state = self._pending.state_of(topic)
            placement = placements.get(topic)
            connector = connectors.get(placement.connector) if placement else None
            if state is None and placement is not None and connector is not None:
                name = exchange_topic(placement.stream)
                state = TopicState(connector["topics"][name], connector["rejected"].get(name, ""))
            states[topic] = (state or TopicState("pending"))._asdict()
        return states


def _record(value: Mapping[str, Any], kind: type[_Record], requirement: str) -> _Record:
    """The value as a record, or an error in our own words."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RequestError(requirement) from error


def _symbols(plan: Plan) -> set[tuple[str, str]]:
    return {(p.stream.category, p.stream.symbol) for p in plan.placements}


def _reply(request_id: str | int, result: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "reply", "id": request_id, "ok": True, "result": result}


def _error_reply(request_id: Any, error: PipelineError) -> dict[str, Any]:
    return {
        "type": "reply",
        "id": request_id,
        "ok": False,
        "error": str(error),
        "exit_code": error.exit_code,
    }
