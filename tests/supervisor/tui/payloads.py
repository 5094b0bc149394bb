"""Messages and statuses as the pipeline publishes them, and screens drawn from them."""

from typing import Any

from bybit_pipeline.supervisor.tui.market_table import ViewState
from bybit_pipeline.supervisor.tui.market_view import watch_screen
from bybit_pipeline.supervisor.tui.state import TableState

WALL = {
    "side": "bid",
    "price": 83766.0,
    "size": 40.5,
    "strength": 9.2,
    "distance_bps": 0.4,
    "eaten_ratio": 0.25,
    "pulled_ratio": 0.0,
    "age_ms": 12_000,
}
BOOK: dict[str, Any] = {
    "kind": "orderbook",
    "category": "linear",
    "symbol": "BTCUSDT",
    "state": "live",
    "reason": None,
    "source": "live",
    "best_bid": 83766.3,
    "best_ask": 83766.4,
    "mid_price": 83766.35,
    "weighted_mid": 83766.36,
    "spread": 0.1,
    "spread_bps": 0.0119,
    "imbalance": {"10": -0.25},
    "densities": [WALL],
    "bids": [[83766.3, 1.0], [83766.0, 40.5], [83765.9, 2.0]],
    "asks": [[83766.4, 3.0], [83766.5, 0.5]],
}
STALE = {
    **BOOK,
    "state": "stale",
    "reason": "gap",
    "best_bid": None,
    "best_ask": None,
    "mid_price": None,
    "weighted_mid": None,
    "spread": None,
    "spread_bps": None,
    "imbalance": None,
    "densities": [],
    "bids": [],
    "asks": [],
}
WINDOW = {
    "tpm": 1234.0,
    "vol_delta": -1.5,
    "coverage_s": 60.0,
    "buy_share": 0.4,
    "vwap": 83760.5,
    "volume": 12.0,
    "low": 83700.0,
    "high": 83800.0,
    "turnover": 1.5e6,
}
TRADES: dict[str, Any] = {
    "kind": "trades",
    "category": "linear",
    "symbol": "BTCUSDT",
    "state": "live",
    "source": "live",
    "last_price": 83766.3,
    "last_size": 0.012,
    "last_side": "Sell",
    "last_trade_id": "a",
    "match_ts_ms": 1_700_000_000_123,
    "cvd": 2.0,
    "tps": 8.6,
    "windows": {"60s": WINDOW},
}


def table_of(
    *payloads: dict[str, Any], markets: tuple[str, ...] = (), now: float = 0.0
) -> TableState:
    table = TableState(markets)
    for payload in payloads:
        table.take(payload, now)
    return table


def screen_of(
    table: TableState,
    view: ViewState | None = None,
    *,
    now: float = 0.0,
    width: int = 120,
    height: int = 40,
) -> str:
    lines = watch_screen(table, view or ViewState(), now, width=width, height=height)
    return "\n".join(line.plain for line in lines)


def process(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "process": name,
        "role": name.split("-")[0],
        "state": "up",
        "pid": 1,
        "uptime_s": 60.0,
        "restarts": 0,
        "cpu_seconds": 1.0,
        "rss_bytes": 2**20,
        "counts": {},
        **changes,
    }


def status(**changes: Any) -> dict[str, Any]:
    connector = {
        "process": "connector-linear-0",
        "url": "ws://h",
        "connected": True,
        "reconnects": 0,
        "ping_rtt_ms": None,
        "last_message_ts_ms": None,
        "topics": {
            "publicTrade.A": "confirmed",
            "orderbook.50.A": "delivering",
            "orderbook.50.B": "pending",
        },
    }
    return {
        "source": "live",
        "feed": {"kind": "live", "host": "stream.bybit.com"},
        "version": "1",
        "ready": True,
        "reasons": [],
        "metrics": "tcp://m",
        "http": "h:1",
        "run_dir": "/run/x",
        "started_ts_ms": 0,
        "processes": [process("trades-0"), process("connector-linear-0")],
        "connectors": [connector],
    } | changes


def gap(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "gap",
        "category": "linear",
        "symbol": "A",
        "stream": "book",
        "reason": "gap",
        "event": "opened",
        "duration_s": None,
        "publish_ts_ns": 10**9,
    } | changes


def wall(at_s: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "density",
        "category": "linear",
        "symbol": "A",
        "event": "detected",
        "publish_ts_ns": at_s * 10**9,
        "peak_size": 50.0,
        **WALL,
    } | changes
