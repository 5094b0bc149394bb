"""
The dashboard process: reads the metrics socket, keeps the state of the page, serves the page.

``trades.*``, ``orderbook.*`` and ``process.*`` are conflated: between two ticks only the newest
message of a topic counts, and the others are not even decoded. Of ``gap.*`` and ``density.*`` every
message counts, and missed ones are counted.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import structlog

from bybit_pipeline.processes.dashboard.page_state import MetricsState, PageState
from bybit_pipeline.processes.dashboard.server import REFUSALS, Server
from bybit_pipeline.shared.bus.subscriber import MetricSubscriber, SubscriberCounts
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.settings.specs import DashboardSpec

log = structlog.get_logger()

RECEIVE_LIMIT = 2_000
"""Messages taken in one turn, so that ticks and the supervisor get their turn under load."""
TICK_S = 0.25
SAMPLE_S = 1.0
SILENT_S = 1.4
"""
Time without any metric, in seconds, after which nothing is current.

Every topic is published once per second. A page shows it up to 0.5 s later, within two seconds.
"""
CONFLATED = ("trades.", "orderbook.", "process.")
GAPS_REQUEST = "dashboard"
GAPS_S = 5.0
"""Interval of the requests for the gaps that no worker has published, and the completeness."""


class Dashboard(Actor):
    """Show the metrics of the pipeline in browsers."""

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
        self.page = PageState(
            preferred("60s", spec.windows),
            preferred("10", [str(levels) for levels in spec.imbalance_levels]),
        )
        self.counts = SubscriberCounts()
        self._received = self.clock.monotonic()
        self._ticked = self._sampled = self._received
        self._subscriber: MetricSubscriber | None = None
        self._server: Server | None = None
        self._declare_counters()

    # -- start and stop --------------------------------------------------------------------------

    def on_start(self) -> None:
        """
        Subscribe to the metrics and serve the page; its address is reported as ``http``.

        Raises:
            TakenError: If the port is taken.
            ConfigError: If the keys of the metrics socket cannot be used.
        """
        self._server = Server(self.spec.host, self.spec.port, self.page, self._now_ms)
        self.endpoints["http"] = self._server.url
        log.info("dashboard", url=self._server.url)
        subscriber = self._subscriber = MetricSubscriber(
            self.spec.metrics,
            context=self.context,
            keys=self.spec.keys,
            conflated=CONFLATED,
            counts=self.counts,
        )
        self.watch(subscriber.monitor, self._on_link)
        self.watch(subscriber.socket, self._on_metrics)
        subscriber.subscribe_prefix("")
        self.every(TICK_S, self._on_tick)
        self._request_gaps()
        self.every(GAPS_S, self._request_gaps)

    def on_stop(self) -> None:
        """Close the page's connections and the subscription."""
        if self._server is not None:
            self._server.close()
        if self._subscriber is not None:
            self._subscriber.close()

    def on_command(self, command: dict[str, Any]) -> None:
        """Take what is in the gap ledger: the reply to our only request."""
        result = command.get("result")
        if command["type"] != "reply" or not isinstance(result, dict):
            log.warning("unusable reply", type=command["type"], error=command.get("error"))
            return
        gaps, days = (
            [row for row in result.get(key, ()) if isinstance(row, dict)]
            for key in ("gaps", "today")
        )
        self._change(lambda: self._take_ledger(gaps, days))

    def _take_ledger(self, gaps: list[dict[str, Any]], days: list[dict[str, Any]]) -> None:
        self.page.take_gaps(gaps, self._now_ms())
        self.page.take_completeness(days)

    def status(self) -> dict[str, Any]:
        """Totals since the start; ``streams`` is the number of pages that are open."""
        counts = self._server.counts if self._server is not None else None
        return {
            "messages": self.counts.messages,
            "invalid": self.counts.invalid,
            "lost": self.counts.missed,
            "streams": counts.streams if counts else 0,
            "updates": counts.updates if counts else 0,
            "refused": sum(counts.refused.values()) if counts else 0,
        }

    # -- metrics ---------------------------------------------------------------------------------

    def _on_metrics(self) -> None:
        assert self._subscriber is not None
        before = self.counts.messages
        metrics = list(self._subscriber.receive(RECEIVE_LIMIT))
        if self.counts.messages == before:
            return
        self._received = self.clock.monotonic()
        events = [metric.payload for metric in metrics if not metric.is_repeat]
        if events:
            self._change(lambda: self._take(events))
        if self.page.metrics != "live":
            self._on_arrival()

    def _take(self, payloads: Iterable[dict[str, Any]]) -> None:
        for payload in payloads:
            self.page.take(payload, self._now_ms(), self.clock.monotonic())

    def _on_arrival(self) -> None:
        """
        Metrics arrive, for the first time or again.

        After a silence the last values are requested again: those that have not changed would
        otherwise stay unknown.
        """
        assert self._subscriber is not None
        log.info("metrics arrive", before=self.page.metrics)
        if self.page.metrics == "silent":
            self._subscriber.request_last_values()
        self._change(lambda: self.page.set_live(self._now_ms()))

    def _on_link(self) -> None:
        """The connection to the forwarder has changed."""
        assert self._subscriber is not None
        if self._subscriber.follow_connection():
            self._on_metrics()  # sent before the loss: taken first, so that it is not taken for new
            if self.page.metrics in ("live", "silent"):
                self._lose("lost")

    def _lose(self, state: MetricsState) -> None:
        """Drop every number: nothing is current any more."""
        assert self._subscriber is not None
        log.warning("no metrics", state=state)
        for _ in self._subscriber.latest():
            pass  # not current either
        self._change(lambda: self.page.lose(state, self._now_ms()))

    def _request_gaps(self) -> None:
        self.send_control("request", id=GAPS_REQUEST, command="gaps", arguments={})

    # -- the page --------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        """Update the page; once per second is enough while no page is open."""
        assert self._server is not None
        assert self._subscriber is not None
        self._subscriber.retry_refused()
        now = self.clock.monotonic()
        if self.page.metrics == "live" and now - self._received >= SILENT_S:
            self._lose("silent")
        if self._server.counts.streams == 0 and now - self._ticked < SAMPLE_S:
            return
        self._ticked = now
        self._change(self._update_page)

    def _update_page(self) -> None:
        assert self._subscriber is not None
        self._take(metric.payload for metric in self._subscriber.latest())
        now = self.clock.monotonic()
        self.page.drop_silent(now)
        if now - self._sampled >= SAMPLE_S:
            self._sampled = now
            self.page.sample(self._now_ms())

    def _change(self, change: Callable[[], None]) -> None:
        """Change the page under the server's lock, and wake the streams."""
        assert self._server is not None
        with self._server.lock:
            change()
            self._server.notify()

    def _now_ms(self) -> int:
        return self.clock.time_ns() // 1_000_000

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        counters = {
            "dashboard_messages_total": ("Metrics received.", "messages"),
            "dashboard_invalid_total": ("Messages that could not be decoded.", "invalid"),
            "dashboard_lost_total": ("Gap and wall events missed.", "lost"),
            "dashboard_updates_total": ("Updates sent to pages.", "updates"),
        }
        for name, (text, field) in counters.items():
            self.telemetry.counters(name, text, ("process",), self._reader(field))
        self.telemetry.gauges(
            "dashboard_streams", "Pages that are open.", ("process",), self._reader("streams")
        )
        self.telemetry.counters(
            "dashboard_refused_total",
            "Requests refused and streams closed.",
            ("process", "reason"),
            self._refused_samples,
        )

    def _reader(self, field: str) -> Callable[[], Samples]:
        return lambda: [((self.process,), self.status()[field])]

    def _refused_samples(self) -> Samples:
        for reason in REFUSALS:
            count = self._server.counts.refused[reason] if self._server is not None else 0
            yield (self.process, reason), count


def preferred(wanted: str, names: list[str] | tuple[str, ...]) -> str:
    """``wanted`` if it is among the names, otherwise the first of them; empty without names."""
    return wanted if wanted in names else next(iter(names), "")
