"""
The switch between live and simulated data.

Each method takes the plan in force and returns the next one; the supervisor reconciles its children
with it. The simulator announces its address only once it is up, and connectors keep their source
until then.
"""

import dataclasses
from collections.abc import Sequence

import structlog

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.wire.messages import Source
from bybit_pipeline.supervisor.plan.names import exchange_topic, fill_category
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.source.fallback import FallbackRule, Link
from bybit_pipeline.supervisor.source.probe import Prober

log = structlog.get_logger()

TRIAL_S = 15.0
"""Time for the connectors to receive live data after the probe did."""
PROBE_TOPICS_MAX = 10
"""Topics that the probe subscribes; data of one are enough."""


class SourceSwitch:
    """
    Falls back to the simulator at the start, and changes over once the exchange serves data.

    The change over is a trial: the simulator keeps running until a connector has received live
    data. If none has in time, the connectors return to it. What counts is the connectors' own
    data: nothing else proves that they can reach the exchange.

    Args:
        config: The configuration.
        telemetry: Registry of the counter.

    Attributes:
        prober: Call ``try_live`` after its ``wakeup``.
    """

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        connector = config.connector
        self._rule = FallbackRule(
            is_auto=config.source == "auto", after_s=connector.fallback_after_s
        )
        self.prober = Prober(
            pause_initial_s=connector.backoff_initial_s,
            pause_max_s=connector.backoff_max_s,
            proxy=connector.proxy,
        )
        self._trial_s = max(TRIAL_S, connector.fallback_after_s)
        self._trial_ends: float | None = None
        """When the connectors return to the simulator; None outside of a trial."""
        self._simulator_url = ""
        self._fallbacks = telemetry.counter(
            "source_fallbacks_total", "Changes from an unreachable exchange to the simulator."
        )

    @property
    def may_fall_back(self) -> bool:
        """True while falling back is still possible."""
        return self._rule.is_armed

    def fall_back_if_due(self, plan: Plan, now: float, links: Sequence[Link]) -> Plan:
        """
        The plan with a simulator, if the exchange has been unreachable for too long.

        Starts to probe the exchange.
        """
        if not self._rule.is_due(now, links):
            return plan
        log.warning(
            "exchange unreachable, using SIMULATED data until it answers", url=plan.live_url
        )
        self._fallbacks.value += 1
        self._start_probing(plan)
        return dataclasses.replace(plan, has_simulator=True)

    def use_simulator(self, plan: Plan, url: str) -> Plan:
        """The plan for a simulator that has announced its address."""
        self._simulator_url = url
        if self._trial_ends is not None:
            return plan
        return _with_source(plan, "replay" if plan.config.source == "replay" else "sim", url)

    def try_live(self, plan: Plan, now: float) -> Plan:
        """The plan that tries live data, while the simulator keeps running."""
        self.prober.wakeup.clear()
        self._trial_ends = now + self._trial_s
        log.warning("exchange answers, changing over to LIVE data", url=plan.live_url)
        return _with_source(plan, "live", plan.live_url)

    def settle_if_due(self, plan: Plan, now: float, links: Sequence[Link]) -> Plan:
        """
        The plan after a trial: for good, once a connector has live data; or back, after some time.

        Args:
            plan: The plan in force.
            now: Time on the monotonic clock.
            links: The connections of the connectors that are up.
        """
        ends = self._trial_ends
        if ends is None:
            return plan
        if any(link.has_message for link in links):
            self._trial_ends = None
            return dataclasses.replace(plan, has_simulator=False)
        if now < ends or any(link.last_heard < ends for link in links):
            return plan
        self._trial_ends = None
        log.warning("no live data arrived, using SIMULATED data until they do", url=plan.live_url)
        self._fallbacks.value += 1
        self._start_probing(plan)
        return _with_source(plan, "sim", self._simulator_url)

    def close(self) -> None:
        """Stop probing."""
        self.prober.close()

    def _start_probing(self, plan: Plan) -> None:
        """Ask for data of named symbols: a pattern may stand for symbols of the simulator."""
        category = plan.first_category
        named = [stream for stream in plan.universe.named if stream.category == category]
        topics = list(dict.fromkeys(exchange_topic(stream) for stream in named))
        self.prober.start(fill_category(plan.live_url, category), topics[:PROBE_TOPICS_MAX])


def _with_source(plan: Plan, source: Source, url: str) -> Plan:
    if not url or (source, url) == (plan.source, plan.url):
        return plan
    log.info("source changed", source=source, url=url)
    return dataclasses.replace(plan, source=source, url=url)
