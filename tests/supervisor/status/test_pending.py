"""Runtime subscriptions stay in the plan until the exchange rejects them."""

from collections.abc import Iterable
from typing import Any

import pytest

from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.market_args import subscribe, unsubscribe
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.status.pending import PendingSubscriptions, TopicState

LINEAR, SPOT = "connector-linear-0", "connector-spot-0"
BOOK, TRADES = "orderbook.50.NOPEUSDT", "publicTrade.NOPEUSDT"
REASON = "error:handler not found"


@pytest.fixture
def before() -> Plan:
    """BTCUSDT, linear."""
    return make_plan(make_config({"market": [{"symbols": ["BTCUSDT"]}]}), run_dir="/run/x")


def subscribed(
    before: Plan, *words: str, rejections_max: int = 10
) -> tuple[PendingSubscriptions, Plan]:
    """The pending subscriptions and the plan after more markets were subscribed."""
    pending, after = PendingSubscriptions(rejections_max=rejections_max), subscribe(before, words)
    pending.start(s for s in after.universe.named if s not in before.universe.named)
    return pending, after


def status(refused: Iterable[str] = (), **states: str) -> dict[str, Any]:
    """A connector's status: states of NOPEUSDT's topics by kind, and the refused topics."""
    topics = {{"book": BOOK, "trades": TRADES}[kind]: state for kind, state in states.items()}
    rejected = {topic: REASON for topic, state in topics.items() if state == "rejected"}
    return {
        "connected": True,
        "topics": topics,
        "rejected": rejected,
        "refused_topics": list(refused),
    }


REJECTED = status([BOOK, TRADES], book="rejected", trades="rejected")


def names(streams: Iterable[Stream]) -> list[str]:
    return [exchange_topic(stream) for stream in streams]


def test_rejected_streams_are_returned_once_and_remembered(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT")

    rejected = pending.update(plan, LINEAR, REJECTED)

    assert [TRADES, BOOK] == names(rejected)
    assert TopicState("rejected", REASON) == pending.state_of("book.linear.NOPEUSDT")
    assert [] == pending.update(plan, LINEAR, REJECTED)


def test_the_plan_without_rejected_streams_is_the_plan_before(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT", "spot:NOPEUSDT")
    rejected = pending.update(plan, LINEAR, REJECTED) + pending.update(plan, SPOT, REJECTED)

    after = plan.with_universe(plan.universe.without_named(rejected))

    assert before == after


def test_only_the_rejected_stream_of_a_market_is_returned(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT")

    rejected = pending.update(plan, LINEAR, status([BOOK], book="rejected", trades="confirmed"))

    assert [BOOK] == names(rejected)
    assert pending.state_of("trade.linear.NOPEUSDT") is None, "the connector's status has it"


def test_without_an_answer_of_the_exchange_a_stream_stays_pending(before: Plan) -> None:
    """The connection was lost, or no acknowledgement or no data came."""
    pending, plan = subscribed(before, "linear:NOPEUSDT")

    assert TopicState("pending") == pending.state_of("book.linear.NOPEUSDT")
    assert [] == pending.update(plan, LINEAR, {"connected": False})
    assert [] == pending.update(plan, LINEAR, status(book="pending", trades="rejected"))
    assert TopicState("pending") == pending.state_of("book.linear.NOPEUSDT")
    assert TopicState("rejected", REASON) == pending.state_of("trade.linear.NOPEUSDT")
    assert [TRADES, BOOK] == names(pending.update(plan, LINEAR, REJECTED))


@pytest.mark.parametrize("state", ["confirmed", "delivering"])
def test_an_accepted_stream_is_never_returned(before: Plan, state: str) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT")
    pending.update(plan, LINEAR, status(book=state, trades=state))

    assert [] == pending.update(plan, LINEAR, REJECTED)


def test_configured_streams_are_not_pending() -> None:
    configured = make_config({"market": [{"symbols": ["BTCUSDT", "NOPEUSDT"]}]})
    pending, plan = subscribed(make_plan(configured, run_dir="/run/x"), "linear:NOPEUSDT")

    assert [] == pending.update(plan, LINEAR, REJECTED)


def test_unsubscribed_streams_are_not_pending(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT")

    assert [] == pending.update(unsubscribe(plan, ["linear:NOPEUSDT"]), LINEAR, REJECTED)

    assert pending.state_of("book.linear.NOPEUSDT") is None


def test_the_status_of_another_connector_does_not_count(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT", "spot:NOPEUSDT")

    rejected = pending.update(plan, SPOT, REJECTED)

    assert {"spot"} == {stream.category for stream in rejected}
    assert TopicState("pending") == pending.state_of("book.linear.NOPEUSDT")


def test_a_rejected_stream_that_is_subscribed_again_is_pending_again(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT")
    pending.start(pending.update(plan, LINEAR, REJECTED))

    assert TopicState("pending") == pending.state_of("book.linear.NOPEUSDT")
    assert [TRADES, BOOK] == names(pending.update(plan, LINEAR, REJECTED))


def test_the_oldest_rejections_are_forgotten(before: Plan) -> None:
    pending, plan = subscribed(before, "linear:NOPEUSDT", rejections_max=1)
    pending.update(plan, LINEAR, REJECTED)

    assert pending.state_of("trade.linear.NOPEUSDT") is None
    assert TopicState("rejected", REASON) == pending.state_of("book.linear.NOPEUSDT")
