"""Plans of configurations: processes, addresses and connection quotas."""

from typing import Any

import pytest

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import make_plan
from tests.supervisor.plan.plans import market, plan_of


def test_the_default_pipeline_has_one_process_of_each_kind() -> None:
    assert ["forwarder", "trades-0", "orderbook-0", "connector-linear-0"] == plan_of().processes


def test_the_dashboard_is_a_process_if_it_is_enabled() -> None:
    plan = plan_of(dashboard={"enabled": True})

    assert ["forwarder", "dashboard", "trades-0"] == plan.processes[:3]


def test_the_simulator_starts_before_the_connectors() -> None:
    names = plan_of(source="sim").processes

    assert names.index("simulator") < names.index("connector-linear-0")


@pytest.mark.parametrize(
    ("tables", "source", "url", "has_simulator"),
    [
        ({}, "live", "wss://stream.bybit.com/v5/public/{category}", False),
        (
            {"source": "live", "network": "testnet"},
            "live",
            "wss://stream-testnet.bybit.com/v5/public/{category}",
            False,
        ),
        ({"source": "live", "url": "ws://h:1/{category}"}, "live", "ws://h:1/{category}", False),
        ({"source": "auto", "url": "ws://h:1/x"}, "live", "ws://h:1/x", False),
        ({"source": "sim"}, "sim", "", True),
        ({"source": "sim", "url": "ws://h:1/{category}"}, "sim", "ws://h:1/{category}", False),
        ({"source": "replay", "replay": {"capture": "/c.jsonl"}}, "replay", "", True),
        ({"source": "replay", "url": "ws://h:1/x"}, "replay", "ws://h:1/x", False),
    ],
)
def test_the_source_label_and_the_address_of_every_source(
    tables: dict[str, Any], source: str, url: str, has_simulator: bool
) -> None:
    plan = plan_of(**tables)

    assert (source, url, has_simulator) == (plan.source, plan.url, plan.has_simulator)


def test_an_address_for_one_category_cannot_serve_two() -> None:
    with pytest.raises(ConfigError, match=r"^url: .*linear and spot; use .*\{category\}"):
        plan_of(
            url="ws://h:1/v5/public/linear", market=[market("linear", ["A"]), market("spot", ["A"])]
        )


def test_a_capture_and_an_address_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"^url: "):
        plan_of(source="replay", url="ws://h:1/x", replay={"capture": "/c.jsonl"})


@pytest.mark.parametrize("symbols", [1, 40, 120, 300])
def test_all_connectors_together_stay_below_the_connection_limit_of_bybit(
    symbols: int,
) -> None:
    market = {"symbols": [f"T{number}USDT" for number in range(symbols)]}
    tables = {"source": "live", "market": [market], "connector": {"topics_per_socket": 15}}
    plan = make_plan(make_config(tables), run_dir="/tmp/x")

    assert len(plan.connectors) * plan.connect_quota <= 400 < 500
    assert plan.connect_quota <= 60
