"""
The ``process.*`` records: the status of every process, by role.

The supervisor publishes them as maps; these records describe them and decode them.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta

from bybit_pipeline.shared.bybit import Network
from bybit_pipeline.shared.wire.common import (
    Bytes,
    Count,
    Lag,
    MetricRecord,
    Millis,
    Nanos,
    Number,
    OrAbsent,
    RoundTrip,
    Seconds,
    Slowdown,
)
from bybit_pipeline.shared.wire.messages import Source

ProcessState = Literal["starting", "up", "silent", "restarting", "flapping", "failed", "stopped"]
FeedKind = Literal["waiting", "offline", "live", "custom", "sim", "replay"]
ExitReason = Literal["exit", "signal", "hung"]
TopicState = Literal["pending", "confirmed", "delivering", "rejected"]


class ProcessMetric(MetricRecord, frozen=True):
    """
    ``process.NAME``: the status of a process, published once a second by the supervisor.

    The fields of a role are absent until the first heartbeat of the process.
    """

    v: Annotated[Literal[1], Meta(description="Schema version.")]
    kind: Literal["process"]
    process: Annotated[str, Meta(description="Name of the process, such as `trades-0`.")]
    source: Annotated[Source, Meta(description="Source of the pipeline; a connector has its own.")]
    epoch: Annotated[str, Meta(description="Changes with every start of the supervisor.")]
    seq: Annotated[Number, Meta(description="Increases by 1 every second.")]
    publish_ts_ns: Annotated[
        Nanos, Meta(description="Time when this message was published, our clock.")
    ]
    pid: Annotated[int | None, Meta(description="Process id; null while it does not run.")]
    state: Annotated[
        ProcessState,
        Meta(
            description="`silent`: it runs, but sends no heartbeats. `flapping`: it fails too "
            "often, so restarts are slow. `failed`: it is not restarted."
        ),
    ]
    restarts: Annotated[Count, Meta(description="Restarts since the pipeline started.")]
    restarts_by_reason: Annotated[
        dict[ExitReason, Count],
        Meta(description="Restarts since the pipeline started, by reason."),
    ]
    uptime_s: Annotated[
        Seconds | None, Meta(description="Time since its start; null while it does not run.")
    ]
    cpu_seconds: Annotated[
        Seconds | None, Meta(description="CPU time used; null while it does not run.")
    ]
    rss_bytes: Annotated[
        Bytes | None, Meta(description="Resident memory; null while it does not run.")
    ]
    prometheus: Annotated[
        str | None, Meta(description="`host:port` of its Prometheus metrics; null until it is up.")
    ]
    exit_code: Annotated[
        int | None,
        Meta(
            description="Exit code of its last end; null if a signal ended it, or if it never "
            "ended."
        ),
    ]


class Feed(MetricRecord, frozen=True):
    """Where the market data really come from."""

    kind: Annotated[
        FeedKind,
        Meta(
            description="`waiting`: no live data yet. `offline`: live data, but no connection now. "
            "`live`: from Bybit. `custom`: from the address in `url`. `sim`: simulated, also by "
            "our own simulator at `url`. `replay`: recorded."
        ),
    ]
    host: Annotated[str | None, Meta(description="Host of the exchange; null until it is known.")]


class SupervisorStatus(ProcessMetric, frozen=True, tag_field="role", tag="supervisor"):
    """The supervisor: the state of the whole pipeline."""

    ready: Annotated[OrAbsent[bool], Meta(description="True if `/readyz` answers 200.")] = UNSET
    reasons: Annotated[
        OrAbsent[list[str]], Meta(description="Reasons why the pipeline is not ready.")
    ] = UNSET
    feed: Annotated[OrAbsent[Feed], Meta(description="Where the market data come from.")] = UNSET
    version: Annotated[OrAbsent[str], Meta(description="Version of the software.")] = UNSET
    network: Annotated[OrAbsent[Network], Meta(description="Network of the exchange.")] = UNSET
    started_ts_ms: Annotated[
        OrAbsent[Millis], Meta(description="Time when the pipeline started, our clock.")
    ] = UNSET


class ForwarderStatus(ProcessMetric, frozen=True, tag_field="role", tag="forwarder"):
    """The forwarder."""

    messages: Annotated[OrAbsent[Count], Meta(description="Metrics forwarded.")] = UNSET
    withheld: Annotated[
        OrAbsent[Count],
        Meta(description="Messages of silent workers that said `live`, not passed on."),
    ] = UNSET
    last_values: Annotated[OrAbsent[Count], Meta(description="Topics in the last-value cache.")] = (
        UNSET
    )
    subscriptions: Annotated[OrAbsent[Count], Meta(description="Subscriptions served.")] = UNSET
    repeats: Annotated[
        OrAbsent[Count], Meta(description="Last values sent to new subscribers.")
    ] = UNSET
    invalid: Annotated[
        OrAbsent[Count], Meta(description="Received frames that were not metrics.")
    ] = UNSET
    refused: Annotated[
        OrAbsent[Count],
        Meta(description="Topics not cached because there were too many."),
    ] = UNSET
    clients_refused: Annotated[
        OrAbsent[Count], Meta(description="Connections rejected because of their key.")
    ] = UNSET


class DashboardStatus(ProcessMetric, frozen=True, tag_field="role", tag="dashboard"):
    """The dashboard."""

    messages: Annotated[OrAbsent[Count], Meta(description="Metrics received.")] = UNSET
    invalid: Annotated[
        OrAbsent[Count], Meta(description="Received frames that were not metrics.")
    ] = UNSET
    lost: Annotated[OrAbsent[Count], Meta(description="Missed gap and wall events.")] = UNSET
    streams: Annotated[OrAbsent[Count], Meta(description="Open pages.")] = UNSET
    updates: Annotated[OrAbsent[Count], Meta(description="Updates sent to pages.")] = UNSET
    refused: Annotated[
        OrAbsent[Count], Meta(description="Rejected requests and disconnected pages.")
    ] = UNSET


class WorkerStatus(ProcessMetric, frozen=True):
    """The fields that the trades and the orderbook worker share."""

    messages: Annotated[
        OrAbsent[Count], Meta(description="Market messages of its own stream processed.")
    ] = UNSET
    lost: Annotated[OrAbsent[Count], Meta(description="Missed market messages.")] = UNSET
    frames_invalid: Annotated[
        OrAbsent[Count],
        Meta(description="Frames of the market bus that could not be read completely."),
    ] = UNSET
    lag_s: Annotated[
        OrAbsent[Lag | None],
        Meta(
            description="Time from the websocket to the worker, latest message; null before the "
            "first one."
        ),
    ] = UNSET
    publish_stretch: Annotated[
        OrAbsent[Slowdown],
        Meta(description="Factor by which an overloaded worker publishes less often; 1 normally."),
    ] = UNSET
    metrics: Annotated[OrAbsent[Count], Meta(description="Metrics published.")] = UNSET
    metrics_dropped: Annotated[
        OrAbsent[Count],
        Meta(description="Metrics dropped because the forwarder was too slow."),
    ] = UNSET


class TradesStatus(WorkerStatus, frozen=True, tag_field="role", tag="trades"):
    """A trades worker."""

    markets: Annotated[OrAbsent[Count], Meta(description="Symbols followed.")] = UNSET
    states: Annotated[
        OrAbsent[dict[Literal["live", "warming", "stale"], Count]],
        Meta(description="Symbols by state."),
    ] = UNSET
    trades: Annotated[OrAbsent[Count], Meta(description="Trades counted.")] = UNSET
    duplicates: Annotated[
        OrAbsent[Count], Meta(description="Trades ignored because their id was seen before.")
    ] = UNSET
    invalid: Annotated[
        OrAbsent[Count],
        Meta(description="Trades ignored because price, size or time was implausible."),
    ] = UNSET
    gaps: Annotated[OrAbsent[Count], Meta(description="Gaps that the worker remembers.")] = UNSET


class OrderbookStatus(WorkerStatus, frozen=True, tag_field="role", tag="orderbook"):
    """An orderbook worker."""

    books: Annotated[
        OrAbsent[dict[Literal["syncing", "live", "stale"], Count]],
        Meta(description="Books by state."),
    ] = UNSET
    not_live: Annotated[
        OrAbsent[dict[str, Seconds]],
        Meta(description="Time that a book has not been live, by bus topic; at most 100."),
    ] = UNSET
    not_live_reasons: Annotated[
        OrAbsent[dict[str, str]],
        Meta(description="Reason why a book of `not_live` is not live, by bus topic."),
    ] = UNSET
    ignored: Annotated[
        OrAbsent[Count], Meta(description="Deltas ignored because there was no snapshot.")
    ] = UNSET
    gaps: Annotated[
        OrAbsent[Count], Meta(description="Times that a live book was invalidated.")
    ] = UNSET
    resyncs_requested: Annotated[
        OrAbsent[Count], Meta(description="Books for which a new snapshot was requested.")
    ] = UNSET
    resyncs_recovered: Annotated[
        OrAbsent[Count], Meta(description="Books that became live after such a request.")
    ] = UNSET


class ConnectorStatus(ProcessMetric, frozen=True, tag_field="role", tag="connector"):
    """A connector; ``source`` is its own."""

    url: Annotated[OrAbsent[str], Meta(description="URL of the websocket.")] = UNSET
    connected: Annotated[OrAbsent[bool], Meta(description="True while the websocket is open.")] = (
        UNSET
    )
    simulated: Annotated[
        OrAbsent[bool],
        Meta(
            description="True if the websocket led to our own simulator, as its handshake says; "
            "`source` may still be `live`."
        ),
    ] = UNSET
    failure: Annotated[
        OrAbsent[str | None],
        Meta(
            description="Reason why there is no connection, such as `dns`, `refused`, `timeout`, "
            "`tls`, `proxy` or the HTTP status `403`; null while there is one or before the first "
            "attempt has failed."
        ),
    ] = UNSET
    failure_detail: Annotated[
        OrAbsent[str | None], Meta(description="Text of that error, one line.")
    ] = UNSET
    next_attempt_ts_ms: Annotated[
        OrAbsent[Millis | None],
        Meta(
            description="Time of the next connection attempt, our clock; null while connected or "
            "while an attempt is under way."
        ),
    ] = UNSET
    session: Annotated[
        OrAbsent[int | None],
        Meta(description="Number of the session; null before the first one."),
    ] = UNSET
    reconnects: Annotated[OrAbsent[Count], Meta(description="Sessions that ended.")] = UNSET
    topics: Annotated[
        OrAbsent[dict[str, TopicState]], Meta(description="State by topic of the exchange.")
    ] = UNSET
    rejected: Annotated[
        OrAbsent[dict[str, str]],
        Meta(description="Reason of every rejected topic, by topic of the exchange."),
    ] = UNSET
    refused_topics: Annotated[
        OrAbsent[list[str]],
        Meta(
            description="Topics of `rejected` that the exchange does not have; others are retried."
        ),
    ] = UNSET
    ping_rtt_ms: Annotated[
        OrAbsent[RoundTrip | None],
        Meta(description="Round trip of the latest ping; null before the first one."),
    ] = UNSET
    live_since_ts_ms: Annotated[
        OrAbsent[Millis | None],
        Meta(
            description="Time of the first message of a live exchange since the process started, "
            "our clock; null before it."
        ),
    ] = UNSET
    last_message_ts_ms: Annotated[
        OrAbsent[Millis | None],
        Meta(description="Time of the latest message, our clock; null before the first one."),
    ] = UNSET
    trade_messages: Annotated[OrAbsent[Count], Meta(description="Trade messages published.")] = (
        UNSET
    )
    book_messages: Annotated[OrAbsent[Count], Meta(description="Book messages published.")] = UNSET
    invalid: Annotated[OrAbsent[Count], Meta(description="Frames skipped as invalid.")] = UNSET
    late: Annotated[
        OrAbsent[Count], Meta(description="Frames of topics that were already unsubscribed.")
    ] = UNSET
    lost_acks: Annotated[
        OrAbsent[Count], Meta(description="Requests that the exchange never answered.")
    ] = UNSET
    attempts_held: Annotated[
        OrAbsent[Count],
        Meta(description="Connection attempts delayed because of Bybit's connection limit."),
    ] = UNSET


class SimulatorStatus(ProcessMetric, frozen=True, tag_field="role", tag="simulator"):
    """The simulated exchange."""

    connections: Annotated[OrAbsent[Count], Meta(description="Open connections.")] = UNSET
    connections_total: Annotated[OrAbsent[Count], Meta(description="Connections accepted.")] = UNSET
    requests: Annotated[OrAbsent[Count], Meta(description="Websocket requests answered.")] = UNSET
    rest_requests: Annotated[OrAbsent[Count], Meta(description="REST requests answered.")] = UNSET
    frames: Annotated[
        OrAbsent[dict[str, Count]], Meta(description="Data frames sent, by stream.")
    ] = UNSET
    overflows: Annotated[
        OrAbsent[Count], Meta(description="Connections closed because the client was too slow.")
    ] = UNSET
    idle: Annotated[
        OrAbsent[Count], Meta(description="Connections closed because the client was idle.")
    ] = UNSET
    faults: Annotated[OrAbsent[dict[str, Count]], Meta(description="Faults injected, by name.")] = (
        UNSET
    )
