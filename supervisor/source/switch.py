"""
The switch between live and simulated data.

Each method takes the plan in force and returns the next one; the supervisor reconciles its children
with it. The simulator announces its address only once it is up, and connectors keep their source
until then.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import structlog

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.wire.messages import Source
from bybit_pipeline.supervisor.plan.names import fill_category
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.source.fallback import FallbackRule, Link
from bybit_pipeline.supervisor.source.probe import Prober

log = structlog.get_logger()


class SourceSwitch:
    """
    Falls back to the simulator at the start, and changes over once the exchange answers.

    Args:
        config: The configuration.
        telemetry: Registry of the counter.

    Attributes:
        prober: Call ``go_live`` after its ``wakeup``.
    """

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        self._rule = FallbackRule(
            is_auto=config.source == "auto", after_s=config.connector.fallback_after_s
        )
        self.prober = Prober(
            pause_initial_s=config.connector.backoff_initial_s,
            pause_max_s=config.connector.backoff_max_s,
        )
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
        self.prober.start(fill_category(plan.live_url, plan.first_category))
        return dataclasses.replace(plan, has_simulator=True)

    def use_simulator(self, plan: Plan, url: str) -> Plan:
        """The plan for a simulator that has announced its address."""
        return _with_source(plan, "replay" if plan.config.source == "replay" else "sim", url)

    def go_live(self, plan: Plan) -> Iterator[Plan]:
        """
        The plans that change over to live data for good, one after the other.

        Connectors leave the simulator before it stops.
        """
        self.prober.wakeup.clear()
        log.warning("exchange answers, changing over to LIVE data", url=plan.live_url)
        live = _with_source(plan, "live", plan.live_url)
        yield live
        yield dataclasses.replace(live, has_simulator=False)

    def close(self) -> None:
        """Stop probing."""
        self.prober.close()


def _with_source(plan: Plan, source: Source, url: str) -> Plan:
    if not url or (source, url) == (plan.source, plan.url):
        return plan
    log.info("source changed", source=source, url=url)
    return dataclasses.replace(plan, source=source, url=url)
