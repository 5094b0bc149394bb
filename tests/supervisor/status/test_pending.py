"""What was subscribed at runtime stays wanted until the exchange itself refuses it."""

from collections.abc import Iterable
from typing import Any

import pytest

from bybit_pipeline.shared.settings.config import make_config
from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.supervisor.plan.market_args import subscribe, unsubscribe
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.status.pending import Answer, PendingSubscriptions

LINEAR, SPOT = "connector-linear-0", "connector-spot-0"
BOOK, TRADES = "orderbook.50.NOPEUSDT", "publicTrade.NOPEUSDT"
WORDS = "error:handler not found"


@pytest.fixture
def before() -> Plan:
    """BTCUSDT, linear."""
    return make_plan(make_config({"market": [{"symbols": ["BTCUSDT"]}]}), run_dir="/run/x")


def asked(before: Plan, *words: str) -> tuple[PendingSubscriptions, Plan]:
    """PendingSubscriptions, and the plan in force, after a command has asked for more markets."""
    pending, after = PendingSubscriptions(), subscribe(before, words)
    pending.start(s for s in after.universe.named if s not in before.universe.named)
    return pending, after


def says(refused: Iterable[str] = (), **states: str) -> dict[str, Any]:
    """A heartbeat's status: NOPEUSDT's topics by kind, and which the exchange refused."""
    topics = {{"book": BOOK, "trades": TRADES}[kind]: state for kind, state in states.items()}
    rejected = {topic: WORDS for topic, state in topics.items() if state == "rejected"}
    return {
        "connected": True,
        "topics": topics,
        "rejected": rejected,
        "refused_topics": list(refused),
    }


REFUSED = says([BOOK, TRADES], book="rejected", trades="rejected")


def names(streams: Iterable[Stream]) -> list[str]:
    return [exchange_topic(stream) for stream in streams]


def test_what_the_exchange_refuses_is_given_once_and_remembered(before: Plan) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT")

    refused = pending.take(plan, LINEAR, REFUSED)

    assert [TRADES, BOOK] == names(refused)
    assert Answer("rejected", WORDS) == pending.answer("book.linear.NOPEUSDT")
    assert [] == pending.take(plan, LINEAR, REFUSED)


def test_the_plan_without_them_is_the_one_before(before: Plan) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT", "spot:NOPEUSDT")
    refused = pending.take(plan, LINEAR, REFUSED) + pending.take(plan, SPOT, REFUSED)

    after = plan.with_universe(plan.universe.without_named(refused))

    assert before == after


def test_of_a_market_only_what_is_refused_leaves(before: Plan) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT")

    refused = pending.take(plan, LINEAR, says([BOOK], book="rejected", trades="confirmed"))

    assert [BOOK] == names(refused)
    assert pending.answer("trade.linear.NOPEUSDT") is None, "the connector's status says it"


def test_without_an_answer_of_the_exchange_it_stays_until_there_is_one(before: Plan) -> None:
    """The link went down, or no ack or no data came: nothing is known of the symbol."""
    pending, plan = asked(before, "linear:NOPEUSDT")

    assert Answer("pending") == pending.answer("book.linear.NOPEUSDT")
    assert [] == pending.take(plan, LINEAR, {"connected": False})
    assert [] == pending.take(plan, LINEAR, says(book="pending", trades="rejected"))
    assert Answer("pending") == pending.answer("book.linear.NOPEUSDT")
    assert Answer("rejected", WORDS) == pending.answer("trade.linear.NOPEUSDT")
    assert [TRADES, BOOK] == names(pending.take(plan, LINEAR, REFUSED))


@pytest.mark.parametrize("state", ["confirmed", "delivering"])
def test_what_was_accepted_once_is_never_dropped(before: Plan, state: str) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT")
    pending.take(plan, LINEAR, says(book=state, trades=state))

    assert [] == pending.take(plan, LINEAR, REFUSED)


def test_what_is_configured_is_not_on_trial() -> None:
    configured = make_config({"market": [{"symbols": ["BTCUSDT", "NOPEUSDT"]}]})
    pending, plan = asked(make_plan(configured, run_dir="/run/x"), "linear:NOPEUSDT")

    assert [] == pending.take(plan, LINEAR, REFUSED)


def test_what_nobody_asks_for_any_longer_is_not_on_trial(before: Plan) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT")

    assert [] == pending.take(unsubscribe(plan, ["linear:NOPEUSDT"]), LINEAR, REFUSED)

    assert pending.answer("book.linear.NOPEUSDT") is None


def test_another_connector_says_nothing_about_it(before: Plan) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT", "spot:NOPEUSDT")

    refused = pending.take(plan, SPOT, REFUSED)

    assert {"spot"} == {stream.category for stream in refused}
    assert Answer("pending") == pending.answer("book.linear.NOPEUSDT")


def test_asked_again_it_is_pending_again(before: Plan) -> None:
    pending, plan = asked(before, "linear:NOPEUSDT")
    pending.start(pending.take(plan, LINEAR, REFUSED))

    assert Answer("pending") == pending.answer("book.linear.NOPEUSDT")
    assert [TRADES, BOOK] == names(pending.take(plan, LINEAR, REFUSED))


def test_refusals_are_forgotten_in_the_end(before: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bybit_pipeline.supervisor.status.pending.REFUSALS_MAX", 1)
    pending, plan = asked(before, "linear:NOPEUSDT")
    pending.take(plan, LINEAR, REFUSED)

    assert pending.answer("trade.linear.NOPEUSDT") is None
    assert Answer("rejected", WORDS) == pending.answer("book.linear.NOPEUSDT")
