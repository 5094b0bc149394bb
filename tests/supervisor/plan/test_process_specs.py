"""The specs of the processes of a plan."""

from bybit_pipeline.shared.settings.specs import (
    ConnectorSpec,
    DashboardSpec,
    ForwarderSpec,
    OrderbookSpec,
    SimulatorSpec,
    TradesSpec,
)
from bybit_pipeline.supervisor.plan.process_specs import make_spec
from tests.supervisor.plan.plans import market, plan_of


def test_every_process_has_what_it_needs_in_its_spec() -> None:
    plan = plan_of(source="sim", trades={"windows": ["5s"]}, density={"k": 9.0})
    specs = {name: make_spec(plan, name, prometheus_port=7) for name in plan.processes}

    connector = specs["connector-linear-0"]
    assert isinstance(connector, ConnectorSpec)
    assert "ipc:///run/x/linear-0.ipc" == connector.market_endpoint
    assert plan.streams_of("connector-linear-0") == connector.streams
    trades, orderbook = specs["trades-0"], specs["orderbook-0"]
    assert isinstance(trades, TradesSpec)
    assert isinstance(orderbook, OrderbookSpec)
    assert ("5s",) == trades.settings.windows
    assert 9.0 == orderbook.density.k
    assert "ipc:///run/x/linear-0.feed" == connector.feed_endpoint
    assert {connector.feed_endpoint} == {a.endpoint for a in orderbook.assignments}
    forwarder, simulator = specs["forwarder"], specs["simulator"]
    assert isinstance(forwarder, ForwarderSpec)
    assert isinstance(simulator, SimulatorSpec)
    assert trades.metrics_in == orderbook.metrics_in == forwarder.metrics_in
    assert {"linear": ["BTCUSDT", "ETHUSDT"]} == simulator.symbols
    assert {plan.control_endpoint} == {spec.control for spec in specs.values()}
    assert {7} == {spec.prometheus_port for spec in specs.values()}


def test_the_category_is_filled_into_the_address_of_each_connector() -> None:
    plan = plan_of(market=[market("linear", ["AUSDT"]), market("spot", ["AUSDT"])])

    for category in ("linear", "spot"):
        spec = make_spec(plan, f"connector-{category}-0")
        assert isinstance(spec, ConnectorSpec)
        assert f"wss://stream.bybit.com/v5/public/{category}" == spec.url


def test_a_replay_is_played_from_the_capture_and_may_fall_silent() -> None:
    plan = plan_of(source="replay", replay={"capture": "/c.jsonl", "speed": 50.0})
    connector, simulator = make_spec(plan, "connector-linear-0"), make_spec(plan, "simulator")

    assert isinstance(connector, ConnectorSpec)
    assert isinstance(simulator, SimulatorSpec)
    assert not connector.silence_matters
    assert ("/c.jsonl", 50.0) == (simulator.capture, simulator.speed)


def test_the_simulator_of_auto_does_not_play_a_capture() -> None:
    spec = make_spec(plan_of(source="auto"), "simulator")

    assert isinstance(spec, SimulatorSpec)
    assert "" == spec.capture


def test_the_dashboard_has_its_windows_levels_and_metrics_endpoint() -> None:
    plan = plan_of(
        dashboard={"enabled": True, "port": 0},
        trades={"windows": ["1m"]},
        orderbook={"imbalance_levels": [5]},
    )

    spec = make_spec(plan, "dashboard")
    assert isinstance(spec, DashboardSpec)
    assert ("127.0.0.1", 0) == (spec.host, spec.port)
    assert (("1m",), (5,)) == (spec.windows, spec.imbalance_levels)
    assert plan.config.metrics.endpoint == spec.metrics
