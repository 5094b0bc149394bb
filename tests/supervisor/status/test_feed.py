"""Where the data really come from, for the badge of every view."""

from typing import Any

import pytest

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.status.feed import feed

OPENED_MS = 1_000_000


def plan(**tables: Any) -> Plan:
    return make_plan(make_config({"source": "live", **tables}), run_dir="/run/x")


def link(**fields: Any) -> dict[str, Any]:
    return {
        "connected": True,
        "session": OPENED_MS,
        "source": "live",
        "simulated": False,
        "last_message_ts_ms": OPENED_MS + 5,
        **fields,
    }


def test_data_of_bybit_are_live() -> None:
    assert {"kind": "live", "host": "stream.bybit.com"} == feed(plan(), [link()])


@pytest.mark.parametrize(
    "connectors",
    [
        [],
        [link(connected=False, session=None, last_message_ts_ms=None)],
        [link(last_message_ts_ms=None)],
        [link(last_message_ts_ms=OPENED_MS - 1)],
        [link(source="sim")],
    ],
    ids=["no connector", "not connected", "no data", "data before", "data of the simulator"],
)
def test_nothing_is_live_before_live_data_have_arrived(connectors: list[dict[str, Any]]) -> None:
    assert "waiting" == feed(plan(), connectors)["kind"]


def test_a_lost_connection_is_not_live() -> None:
    assert "offline" == feed(plan(), [link(connected=False)])["kind"]


def test_an_address_of_the_user_is_named() -> None:
    there = plan(url="wss://market.example:9000/v5/public/{category}")
    assert {"kind": "custom", "host": "market.example:9000"} == feed(there, [link()])


def test_our_own_simulator_is_recognized_at_any_address() -> None:
    there = plan(url="ws://127.0.0.1:9000/v5/public/{category}")
    assert "sim" == feed(there, [link(), link(simulated=True)])["kind"]


def test_data_of_the_embedded_simulator_are_never_live() -> None:
    assert "sim" == feed(plan(source="sim"), [link(source="sim")])["kind"]
