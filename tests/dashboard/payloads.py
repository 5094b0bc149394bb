"""Messages of the metrics socket, as the workers and the supervisor publish them."""

from typing import Any

Payload = dict[str, Any]


def head(kind: str, symbol: str, seq: int, *, epoch: str = "e-1", state: str = "live") -> Payload:
    return {
        "v": 1,
        "kind": kind,
        "category": "linear",
        "symbol": symbol,
        "source": "live",
        "process": "orderbook-0",
        "epoch": epoch,
        "seq": seq,
        "state": state,
        "reason": None,
        "match_ts_ms": 1_000,
        "exchange_ts_ms": 1_001,
        "recv_ts_ns": 2,
        "publish_ts_ns": 3,
    }


def book(symbol: str = "BTCUSDT", seq: int = 1, **more: Any) -> Payload:
    wall = {
        "side": "bid",
        "price": 99.0,
        "size": 50.0,
        "strength": 9.0,
        "distance_bps": 15.0,
        "age_ms": 4_000,
        "eaten_ratio": 0.1,
        "pulled_ratio": 0.0,
    }
    far = {**wall, "price": 90.0, "distance_bps": 150.0}
    return {
        **head("orderbook", symbol, seq),
        "best_bid": 100.0,
        "best_ask": 100.5,
        "mid_price": 100.25,
        "spread": 0.5,
        "spread_bps": 49.9,
        "imbalance": {"1": 0.5, "10": -0.25},
        "bids": [[100.0, 3.0]],
        "asks": [[100.5, 1.0]],
        "densities": [far, wall],
        **more,
    }


def stale_book(symbol: str = "BTCUSDT", seq: int = 2) -> Payload:
    gone = dict.fromkeys(("best_bid", "best_ask", "mid_price", "spread", "spread_bps", "imbalance"))
    return book(symbol, seq, state="stale", reason="gap", bids=[], asks=[], densities=[], **gone)


def trades(symbol: str = "BTCUSDT", seq: int = 1, trade_id: str = "t1", **more: Any) -> Payload:
    window = {"tpm": 12.0, "vol_delta": -1.5, "volume": 4.0, "coverage_s": 60.0}
    return {
        **head("trades", symbol, seq),
        "last_price": 100.5,
        "last_size": 2.0,
        "last_side": "Buy",
        "last_trade_id": trade_id,
        "windows": {"10s": {**window, "tpm": 6.0}, "60s": window},
        **more,
    }


def process(name: str, seq: int, **more: Any) -> Payload:
    return {
        "v": 1,
        "kind": "process",
        "process": name,
        "role": name.split("-")[0],
        "state": "up",
        "pid": 7,
        "restarts": 0,
        "uptime_s": 1.0,
        "epoch": "s-1",
        "seq": seq,
        "source": "live",
        "publish_ts_ns": seq,
        **more,
    }


def gap(gap_id: int, opened_ns: int | None, closed_ns: int | None = None, **more: Any) -> Payload:
    return {
        **head("gap", "BTCUSDT", gap_id),
        "stream": "book",
        "gap_id": gap_id,
        "reason": "gap",
        "opened_ts_ns": opened_ns,
        "closed_ts_ns": closed_ns,
        "duration_s": None if closed_ns is None else 1.5,
        **more,
    }


def trades_gap(gap_id: int, event: str, end_ms: int | None = None) -> Payload:
    return {
        **head("gap", "BTCUSDT", gap_id),
        "stream": "trades",
        "gap_id": gap_id,
        "event": event,
        "reason": "disconnected",
        "start_ms": 1_000,
        "end_ms": end_ms,
        "duration_s": None if end_ms is None else (end_ms - 1_000) / 1_000,
    }


def density(seq: int, event: str = "detected") -> Payload:
    return {
        **head("density", "BTCUSDT", seq),
        "event": event,
        "side": "bid",
        "price": 99.0,
        "size": 50.0,
        "peak_size": 50.0,
        "strength": 9.0,
        "eaten_ratio": 0.0,
        "pulled_ratio": 0.0,
        "distance_bps": 15.0,
        "age_ms": 0,
    }
