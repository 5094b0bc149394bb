"""Plans and streams for tests."""

from typing import Any

from hypothesis import strategies as st

from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.plan.universe import Universe, make_stream

RUN_DIR = "/run/x"

CATEGORY_SYMBOLS = {
    "linear": [f"{envelope}USDT" for envelope in "ABCDEFGHIJKLMNOP"],
    "spot": [f"{envelope}USDC" for envelope in "ABCDEFGH"],
    "option": [f"{base}-26MAR27-{k}000-C" for base in ("BTC", "ETH", "XRP") for k in range(1, 7)],
}
STREAMS = [
    make_stream(kind, category, symbol, 25 if category == "option" else 50)  # type: ignore[arg-type]
    for category, symbols in CATEGORY_SYMBOLS.items()
    for symbol in symbols
    for kind in ("trades", "orderbook")
]
CONFIGS = st.builds(
    lambda topics, trades, orderbook: make_config(
        {
            "connector": {"topics_per_socket": topics},
            "workers": {"trades": trades, "orderbook": orderbook},
        }
    ),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 5),
)


def plan_of(**tables: Any) -> Plan:
    """The plan of a configuration with these tables."""
    return make_plan(make_config(tables), run_dir=RUN_DIR)


def market(category: str, symbols: list[str], depth: int = 50, **more: Any) -> dict[str, Any]:
    """A market table."""
    return {"category": category, "symbols": symbols, "depth": depth, **more}


def topics_by_connector(plan: Plan) -> dict[str, list[str]]:
    """The exchange topics of every connector."""
    return {
        name: sorted({exchange_topic(stream) for stream in plan.streams_of(name)})
        for name in plan.connectors
    }


def empty_plan(config: Config) -> Plan:
    """A plan without streams."""
    return make_plan(config, run_dir=RUN_DIR).with_universe(Universe())
