"""The spec of each process of a plan: everything that it is started with. Pure."""

from typing import Any

from bybit_pipeline.shared.settings.specs import (
    ConnectorSpec,
    DashboardSpec,
    ForwarderSpec,
    OrderbookSpec,
    ProcessSpec,
    SimulatorSpec,
    TradesSpec,
)
from bybit_pipeline.shared.wire.messages import Category
from bybit_pipeline.supervisor.plan.names import category_of, role_of
from bybit_pipeline.supervisor.plan.plan import Plan


def make_spec(plan: Plan, process: str, *, prometheus_port: int = 0) -> ProcessSpec:
    """
    The spec of one child.

    Args:
        plan: The plan in force.
        process: One of ``plan.processes``.
        prometheus_port: Preferred scrape port; 0 lets the operating system choose.
    """
    role = role_of(process)
    common: dict[str, Any] = {
        "process": process,
        "role": role,
        "run_dir": plan.run_dir,
        "control": plan.control_endpoint,
        "prometheus_host": plan.config.prometheus.host,
        "prometheus_port": prometheus_port,
        "log_format": plan.log_format,
        "log_level": plan.log_level,
    }
    make = {
        "connector": _connector,
        "trades": _trades,
        "orderbook": _orderbook,
        "forwarder": _forwarder,
        "dashboard": _dashboard,
        "simulator": _simulator,
    }[role]
    return make(plan, common)


def _connector(plan: Plan, common: dict[str, Any]) -> ConnectorSpec:
    name = common["process"]
    return ConnectorSpec(
        **common,
        category=category_of(name),
        url=plan.connector_url(name),
        source=plan.source,
        market_endpoint=plan.market_endpoint(name),
        feed_endpoint=plan.feed_endpoint(name),
        streams=plan.streams_of(name),
        settings=plan.config.connector,
        connect_quota=plan.connect_quota,
        silence_matters=plan.source != "replay",
    )


def _trades(plan: Plan, common: dict[str, Any]) -> TradesSpec:
    return TradesSpec(
        **common,
        metrics_in=plan.metrics_in,
        assignments=plan.assignments_of(common["process"]),
        settings=plan.config.trades,
        per_symbol=plan.config.prometheus.per_symbol,
    )


def _orderbook(plan: Plan, common: dict[str, Any]) -> OrderbookSpec:
    return OrderbookSpec(
        **common,
        metrics_in=plan.metrics_in,
        assignments=plan.assignments_of(common["process"]),
        settings=plan.config.orderbook,
        density=plan.config.density,
        per_symbol=plan.config.prometheus.per_symbol,
    )


def _forwarder(plan: Plan, common: dict[str, Any]) -> ForwarderSpec:
    return ForwarderSpec(
        **common,
        metrics_in=plan.metrics_in,
        endpoint=plan.config.metrics.endpoint,
        keys=plan.keys or "",
    )


def _dashboard(plan: Plan, common: dict[str, Any]) -> DashboardSpec:
    """Has the configured metrics endpoint; ``Children`` puts in the one that was bound."""
    return DashboardSpec(
        **common,
        metrics=plan.config.metrics.endpoint,
        keys=plan.keys or "",
        host=plan.config.dashboard.host,
        port=plan.config.dashboard.port,
        windows=plan.config.trades.windows,
        imbalance_levels=plan.config.orderbook.imbalance_levels,
    )


def _simulator(plan: Plan, common: dict[str, Any]) -> SimulatorSpec:
    symbols: dict[Category, list[str]] = {}
    for stream in plan.universe.named:  # patterns match the simulator's own list
        listed = symbols.setdefault(stream.category, [])
        if stream.symbol not in listed:
            listed.append(stream.symbol)
    replay = plan.config.replay if plan.config.source == "replay" else None
    return SimulatorSpec(
        **common,
        symbols=symbols,
        capture=replay.capture if replay else "",
        speed=replay.speed if replay else 1.0,
    )
