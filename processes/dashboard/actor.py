"""
The dashboard: reads the metrics socket, keeps the board, serves the page.

Of ``trades.*``, ``orderbook.*`` and ``process.*`` the latest message counts: those that arrive
between two ticks are not even decoded. Of ``gap.*`` and ``density.*`` every message counts, and a
hole in their numbers is counted as a loss.
"""

from pathlib import Path
from typing import Any, ClassVar

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from bybit_pipeline.processes.dashboard.page_state import Board
from bybit_pipeline.processes.dashboard.server import REFUSALS, Server
from bybit_pipeline.shared.bus.sockets import RECONNECT_MS
from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.settings.curve_keys import read_client_keys
from bybit_pipeline.shared.settings.specs import DashboardSpec
from bybit_pipeline.shared.wire import codec

log = structlog.get_logger()

QUEUE = 10_000
RECEIVE_LIMIT = 2_000
"""Messages taken in one turn, so that ticks and the supervisor are served under load."""
TICK_S = 0.25
SAMPLE_S = 1.0
SILENT_S = 3.0
"""The supervisor alone is heard once a second; nothing for so long, and nothing is known."""
EVENT_KINDS = (b"gap.", b"density.")
STREAMS_PER_TOPIC_MAX = 4
"""A topic with two publishers (``gap``) has two epochs at a time, and each its own numbers."""
FEED_GONE = zmq.EVENT_DISCONNECTED
GAPS_ASKED = "dashboard"


class Dashboard(Actor):
    """Show the metrics of the pipeline to browsers."""

    role: ClassVar[str] = "dashboard"

    def __init__(
        self,
        spec: DashboardSpec,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.spec = spec
        self.board = Board(
            preferred("60s", spec.windows),
            preferred("10", [str(levels) for levels in spec.imbalance_levels]),
            {"metrics": spec.metrics},
        )
        self.lost = 0
        self._waiting: dict[bytes, bytes] = {}
        self._numbers: dict[bytes, dict[Any, int]] = {}
        self._heard = self.clock.monotonic()
        self._ticked = self._sampled = self._heard
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._server: Server | None = None
        self._messages = self.telemetry.counter(
            "dashboard_messages_total", "Metrics received.", process=self.process
        )
        self._invalid = self.telemetry.counter(
            "dashboard_invalid_total", "Messages that were no metrics.", process=self.process
        )
        self._declare_counters()

    # -- start and stop --------------------------------------------------------------------------

    def on_start(self) -> None:
        """
        Listen to the metrics and serve the page; its address is reported as ``http``.

        Raises:
            TakenError: If the port is taken.
            ConfigError: If the keys of the metrics socket cannot be used.
        """
        self._server = Server(self.spec.host, self.spec.port, self.board, self._now_ms)
        self.endpoints["http"] = self._server.url
        log.info("dashboard", url=self._server.url)
        socket = self._socket = self.context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, QUEUE)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._monitor = socket.get_monitor_socket(FEED_GONE)
        self.watch(self._monitor, self._on_gone)
        self.watch(socket, self._on_metrics)
        if self.spec.keys:
            read_client_keys(Path(self.spec.keys)).apply(socket)
        socket.subscribe(b"")
        socket.connect(self.spec.metrics)
        self.every(TICK_S, self._on_tick)
        self._ask_for_gaps()

    def on_stop(self) -> None:
        """Hang up on the browsers and stop listening."""
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close()

    def on_command(self, command: dict[str, Any]) -> None:
        """Take the workers' gap ledgers, the answer to our only question."""
        result = command.get("result")
        if command["type"] != "reply" or not isinstance(result, dict):
            log.warning("unusable answer", answer=command["type"], error=command.get("error"))
            return
        gaps = [gap for gap in result.get("gaps", ()) if isinstance(gap, dict)]
        self._change(lambda: self.board.take_ledger(gaps, self._now_ms()))

    def status(self) -> dict[str, Any]:
        """Counts since the start; ``streams`` are the pages that are open now."""
        counts = self._server.counts if self._server is not None else None
        return {
            "messages": int(self._messages.value),
            "invalid": int(self._invalid.value),
            "lost": self.lost,
            "streams": counts.streams if counts else 0,
            "updates": counts.updates if counts else 0,
            "refused": sum(counts.refused.values()) if counts else 0,
        }

    # -- metrics in ------------------------------------------------------------------------------

    def _on_metrics(self) -> None:
        assert self._socket is not None
        events = []
        for _ in range(RECEIVE_LIMIT):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._messages.value += 1
            if len(frames) != 2:
                self._invalid.value += 1
            elif frames[0].startswith(EVENT_KINDS):
                events.append(frames)
            else:
                self._waiting[frames[0]] = frames[1]
        self._heard = self.clock.monotonic()
        if events:
            self._change(lambda: self._take_events(events))
        if self.board.feed != "live":
            self._on_heard()

    def _take_events(self, events: list[list[bytes]]) -> None:
        for topic, frame in events:
            payload = self._decode(frame)
            if payload is not None and self._is_new(topic, payload):
                self.board.take(payload, self._now_ms())

    def _is_new(self, topic: bytes, payload: dict[str, Any]) -> bool:
        """False for a repeat, which the forwarder sends for somebody else; counts holes."""
        epoch, seq = payload.get("epoch"), payload.get("seq")
        if not isinstance(seq, int):
            return False
        numbers = self._numbers.setdefault(topic, {})
        last = numbers.pop(epoch, None)
        numbers[epoch] = seq if last is None else max(seq, last)
        if len(numbers) > STREAMS_PER_TOPIC_MAX:
            del numbers[next(iter(numbers))]
        if last is not None and seq > last + 1:
            self.lost += seq - last - 1
        return last is None or seq > last

    def _decode(self, frame: bytes) -> dict[str, Any] | None:
        try:
            return codec.decode_map(frame)
        except CodecError:
            self._invalid.value += 1
            return None

    # -- the board -------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        """Bring the board up to date; once a second is enough while nobody looks."""
        assert self._server is not None
        now = self.clock.monotonic()
        if self.board.feed == "live" and now - self._heard >= SILENT_S:
            self._on_lost("silent")
        if self._server.counts.streams == 0 and now - self._ticked < SAMPLE_S:
            return
        self._ticked = now
        self._change(self._take_waiting)

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for frame in waiting.values():
            payload = self._decode(frame)
            if payload is not None:
                self.board.take(payload, self._now_ms())
        self.board.drop_silent(self._now_ms())
        now = self.clock.monotonic()
        if now - self._sampled >= SAMPLE_S:
            self._sampled = now
            self.board.sample(self._now_ms())

    def _on_gone(self) -> None:
        """The forwarder is gone. What it had sent is taken first, lest it pass for new."""
        assert self._monitor is not None
        while self._monitor.poll(0):
            recv_monitor_message(self._monitor)
        self._on_metrics()
        if self.board.feed in ("live", "silent"):
            self._on_lost("lost")

    def _on_lost(self, state: Any) -> None:
        log.warning("metrics are gone", state=state)
        self._waiting.clear()
        self._change(lambda: self.board.lose(state, self._now_ms()))

    def _on_heard(self) -> None:
        """
        Metrics come, for the first time or again.

        After a silence the last values are asked for once more, as those that have not changed
        since would not be repeated.
        """
        assert self._socket is not None
        log.info("metrics arrive", before=self.board.feed)
        if self.board.feed == "silent":
            self._socket.unsubscribe(b"")
            self._socket.subscribe(b"")
        if self.board.feed != "starting":
            self._ask_for_gaps()
        self._change(lambda: self.board.live(self._now_ms()))

    def _ask_for_gaps(self) -> None:
        self.send_control("request", id=GAPS_ASKED, command="gaps", arguments={})

    def _change(self, change: Any) -> None:
        """Change the board under the server's lock, and wake the streams."""
        assert self._server is not None
        with self._server.lock:
            change()
            self._server.news()

    def _now_ms(self) -> int:
        return self.clock.time_ns() // 1_000_000

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        telemetry = self.telemetry
        telemetry.counters(
            "dashboard_lost_total",
            "Gap and wall events that did not arrive.",
            ("process",),
            lambda: [((self.process,), self.lost)],
        )
        telemetry.gauges(
            "dashboard_streams",
            "Pages that are open.",
            ("process",),
            lambda: [((self.process,), self.status()["streams"])],
        )
        telemetry.counters(
            "dashboard_updates_total",
            "Updates sent to pages.",
            ("process",),
            lambda: [((self.process,), self.status()["updates"])],
        )
        telemetry.counters(
            "dashboard_refused_total",
            "Requests refused, streams cut.",
            ("process", "reason"),
            self._refused_samples,
        )

    def _refused_samples(self) -> Samples:
        for reason in REFUSALS:
            count = self._server.counts.refused[reason] if self._server is not None else 0
            yield (self.process, reason), count


def preferred(wished: str, names: list[str] | tuple[str, ...]) -> str:
    """The wished name if it is one of the names, else the first of them; empty if there is none."""
    return wished if wished in names else next(iter(names), "")
