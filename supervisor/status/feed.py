"""
The feed: where the market data really come from, for the badge of every view. Pure.

``source`` names the configured source of the messages. A view needs more: ``live`` data may not
have arrived yet, come through an address of the user's own, or come from our own simulator there,
which is recognized from its handshake.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from bybit_pipeline.shared.bybit import STREAM_URLS
from bybit_pipeline.shared.wire.process_status import FeedKind
from bybit_pipeline.supervisor.plan.plan import Plan

BYBIT_HOSTS = frozenset(urlsplit(url).netloc for url in STREAM_URLS.values())


def feed(plan: Plan, connectors: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    The feed, as in the status.

    Args:
        plan: The plan in force.
        connectors: Result of ``connector_entries``.
    """
    host = urlsplit(plan.url).netloc or None
    return {"kind": _kind(plan, list(connectors), host), "host": host}


def _kind(plan: Plan, connectors: list[Mapping[str, Any]], host: str | None) -> FeedKind:
    if plan.source != "live":
        return plan.source
    if any(connector.get("simulated") for connector in connectors):
        return "sim"
    if not any(_has_delivered(connector) for connector in connectors):
        return "waiting"
    if not any(connector["connected"] for connector in connectors):
        return "offline"
    return "live" if host in BYBIT_HOSTS else "custom"


def _has_delivered(connector: Mapping[str, Any]) -> bool:
    """True once data of the live source have arrived; a connector may change its source."""
    heard_ms, session = connector["last_message_ts_ms"], connector["session"]
    if heard_ms is None or session is None or connector.get("source", "live") != "live":
        return False
    return bool(heard_ms >= session)  # a session is numbered by its opening time in ms
