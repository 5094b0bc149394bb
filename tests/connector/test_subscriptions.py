"""Requests, acks, refusals and resyncs of the topics of one connection."""

import json
import re
from collections.abc import Iterator
from itertools import chain, pairwise, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.connector.protocol import Ack, Op
from bybit_pipeline.processes.connector.topics.subscriptions import (
    MAX_TRIES,
    RESYNC_INTERVAL_S,
    RESYNC_SETTLE_S,
    Subscriptions,
)
from bybit_pipeline.processes.connector.topics.topic import Event
from bybit_pipeline.shared.bybit import TOPICS_PER_REQUEST_MAX

BTC, ETH, NOPE = "orderbook.50.BTCUSDT", "orderbook.50.ETHUSDT", "orderbook.50.NOPEUSDT"
BTC_TRADES = "publicTrade.BTCUSDT"
ACK_S = 10.0
NOT_FOUND = "error:handler not found,topic:"
ALREADY = "error:already subscribed,topic:"


class Request:
    """A request as the exchange reads it."""

    def __init__(self, text: str) -> None:
        body = json.loads(text)
        self.op: Op = body["op"]
        self.req_id: str = body["req_id"]
        self.args: list[str] = body["args"]

    def __repr__(self) -> str:
        return f"{self.op} {self.args}"


def sent(subscriptions: Subscriptions) -> list[Request]:
    return [Request(text) for text in subscriptions.take_requests()]


def granted(request: Request) -> Ack:
    return Ack(True, request.op, request.req_id, "")


def refused(request: Request, text: str) -> Ack:
    return granted(request)._replace(success=False, text=text)


def connected(*topics: str) -> tuple[Subscriptions, list[Request]]:
    subscriptions = Subscriptions(ack_timeout_s=ACK_S)
    subscriptions.subscribe(topics, 0.0)
    subscriptions.on_connected(0.0)
    return subscriptions, sent(subscriptions)


def delivering(*topics: str) -> Subscriptions:
    """Subscriptions with all topics acked and delivering since time 0."""
    subscriptions, requests = connected(*topics)
    for request in requests:
        subscriptions.on_ack(granted(request), 0.0)
    for topic in topics:
        assert "pass" == subscriptions.on_data(topic, True, 0.0)
    subscriptions.take_events()
    return subscriptions


def kinds(subscriptions: Subscriptions) -> list[tuple[str, str, str]]:
    return [(event.kind, event.topic, event.reason) for event in subscriptions.take_events()]


# -- subscribing ---------------------------------------------------------------------------------


def test_nothing_is_sent_before_there_is_a_connection() -> None:
    subscriptions = Subscriptions(ack_timeout_s=ACK_S)
    subscriptions.subscribe([BTC], 0.0)
    subscriptions.on_time(100.0)
    assert [] == sent(subscriptions)
    assert {BTC: "pending"} == subscriptions.states()


def test_a_request_has_at_most_ten_topics_and_an_id_of_its_own() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(25)]
    _, requests = connected(*topics)
    assert [10, 10, 5] == [len(request.args) for request in requests]
    assert [topic for request in requests for topic in request.args] == topics
    assert 3 == len({request.req_id for request in requests})


def test_ids_are_not_reused_on_the_next_connection() -> None:
    subscriptions, [first] = connected(BTC)
    subscriptions.on_disconnected()
    subscriptions.on_connected(20.0)
    [second] = sent(subscriptions)
    assert first.req_id != second.req_id
    assert [BTC] == second.args


def test_an_invalid_topic_is_rejected_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match=r"kline\.1\.BTCUSDT"):
        Subscriptions(ack_timeout_s=ACK_S).subscribe(["kline.1.BTCUSDT"], 0.0)


def test_topics_change_from_pending_to_confirmed_to_delivering() -> None:
    subscriptions, [request] = connected(BTC, BTC_TRADES)
    assert {BTC: "pending", BTC_TRADES: "pending"} == subscriptions.states()
    subscriptions.on_ack(granted(request), 0.1)
    assert {BTC: "confirmed", BTC_TRADES: "confirmed"} == subscriptions.states()
    assert [("subscribed", BTC, ""), ("subscribed", BTC_TRADES, "")] == kinds(subscriptions)
    assert "pass" == subscriptions.on_data(BTC, True, 0.2)
    assert {BTC: "delivering", BTC_TRADES: "confirmed"} == subscriptions.states()
    assert {BTC} == subscriptions.flowing
    assert [] == kinds(subscriptions)


def test_data_before_the_ack_counts_as_the_ack() -> None:
    subscriptions, [request] = connected(BTC)
    assert "pass" == subscriptions.on_data(BTC, True, 0.1)
    assert [("subscribed", BTC, "")] == kinds(subscriptions)
    subscriptions.on_ack(granted(request), 0.2)
    subscriptions.on_time(100.0)
    assert {BTC: "delivering"} == subscriptions.states()
    assert [] == sent(subscriptions)
    assert [] == kinds(subscriptions)


def test_a_delta_before_the_snapshot_is_dropped_and_counted() -> None:
    subscriptions, [request] = connected(BTC)
    subscriptions.on_ack(granted(request), 0.1)
    assert "unexpected" == subscriptions.on_data(BTC, False, 0.2)
    assert 1 == subscriptions.unexpected
    assert set() == subscriptions.flowing


def test_a_topic_that_was_never_subscribed_is_unknown() -> None:
    assert "unknown" == delivering(BTC).on_data(ETH, True, 1.0)


def test_a_spot_ack_without_id_is_for_the_oldest_request_with_its_op() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(20)]
    subscriptions, _ = connected(*topics)
    subscriptions.on_ack(Ack(True, "subscribe", "", "subscribe"), 0.1)
    states = subscriptions.states()
    assert ["confirmed"] * 10 + ["pending"] * 10 == [states[topic] for topic in topics]


def test_an_ack_with_an_unknown_id_changes_nothing() -> None:
    subscriptions, _ = connected(BTC)
    subscriptions.on_ack(Ack(True, "subscribe", "strange", ""), 0.1)
    assert {BTC: "pending"} == subscriptions.states()
    assert 1 == subscriptions.unmatched


# -- options -------------------------------------------------------------------------------------

CALL, PUT = "orderbook.25.BTC-30OCT26-100000-C", "orderbook.25.BTC-30OCT26-100000-P"


def test_an_option_ack_is_matched_by_its_topics() -> None:
    subscriptions, _ = connected(CALL, PUT, "publicTrade.BTC")
    subscriptions.on_ack(Ack(True, None, "", "", (CALL, "publicTrade.BTC")), 0.1)
    assert {
        CALL: "confirmed",
        PUT: "pending",
        "publicTrade.BTC": "confirmed",
    } == subscriptions.states()
    subscriptions.on_ack(Ack(True, None, "", "", (PUT,)), 0.2)
    assert "confirmed" == subscriptions.states()[PUT]


def test_only_the_option_topics_in_fail_topics_are_rejected() -> None:
    subscriptions, _ = connected(CALL, PUT)
    subscriptions.on_ack(Ack(False, None, "", "", (CALL,), (PUT,)), 0.1)
    assert {CALL: "confirmed", PUT: "rejected"} == subscriptions.states()
    assert PUT in subscriptions.rejected()


def test_option_topics_missing_from_an_ack_are_sent_again() -> None:
    subscriptions, _ = connected(CALL, PUT)
    subscriptions.on_ack(Ack(True, None, "", "", (CALL,)), 0.1)
    subscriptions.on_time(ACK_S)
    assert [[PUT]] == [request.args for request in sent(subscriptions)]


def test_an_option_unsubscribe_ack_ends_a_resync() -> None:
    subscriptions = delivering(CALL, PUT)
    subscriptions.resync(CALL, 5.0)
    subscriptions.on_time(5.0)
    subscriptions.take_requests()
    subscriptions.on_ack(Ack(True, None, "", "", (CALL,)), 5.1)
    assert f"[subscribe ['{CALL}']]" == repr(sent(subscriptions))
    assert {PUT} == subscriptions.flowing


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [NOT_FOUND + NOPE, f"Invalid symbol :[{NOPE}]"])
def test_the_named_topic_is_rejected_and_the_others_are_sent_again(text: str) -> None:
    subscriptions, [request] = connected(BTC, NOPE, ETH)
    subscriptions.on_ack(refused(request, text), 0.1)
    [second] = sent(subscriptions)
    assert [BTC, ETH] == second.args
    subscriptions.on_ack(granted(second), 0.2)
    assert {BTC: "confirmed", NOPE: "rejected", ETH: "confirmed"} == subscriptions.states()
    assert {NOPE: text} == subscriptions.rejected()
    assert [NOPE] == subscriptions.refused()
    assert Event("rejected", NOPE, "refused", text) in subscriptions.take_events()


PASSING = "error:internal server error"


@pytest.mark.parametrize("topic", [BTC, BTC_TRADES])
def test_a_passing_refusal_is_asked_for_again_with_growing_pauses(topic: str) -> None:
    subscriptions, [request] = connected(topic)
    now, pauses = 0.0, []
    for _ in range(9):
        subscriptions.on_ack(refused(request, PASSING), now)
        assert {topic: "rejected"} == subscriptions.states()
        assert {topic: PASSING} == subscriptions.rejected()
        assert [] == subscriptions.refused(), "it is not said to be missing"
        assert [] == sent(subscriptions)
        began = now
        while not (again := sent(subscriptions)):
            now += 0.5
            subscriptions.on_time(now)
        [request] = again
        assert [topic] == request.args
        pauses.append(now - began)
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == pauses
    subscriptions.on_ack(granted(request), now)
    assert {topic: "confirmed"} == subscriptions.states()


@pytest.mark.parametrize("topic", [BTC, BTC_TRADES])
def test_a_missing_topic_is_not_asked_for_again(topic: str) -> None:
    subscriptions, [request] = connected(topic)
    subscriptions.on_ack(refused(request, NOT_FOUND + topic), 0.0)
    subscriptions.on_time(100_000.0)
    assert [] == sent(subscriptions)
    assert [topic] == subscriptions.refused()


def test_a_batch_that_is_refused_for_a_while_is_served_in_the_end() -> None:
    """Whole batch first, then each topic: the exchange fails twice for everything."""
    subscriptions, [batch] = connected(BTC, BTC_TRADES, ETH)
    subscriptions.on_ack(refused(batch, PASSING), 0.0)
    for request in sent(subscriptions):
        subscriptions.on_ack(refused(request, ""), 0.1)
    assert ["refused"] * 3 == list(subscriptions.rejected().values())
    subscriptions.on_time(1.2)
    for request in sent(subscriptions):
        subscriptions.on_ack(granted(request), 1.3)
    assert {"confirmed"} == set(subscriptions.states().values())


def test_one_topic_of_a_batch_that_fails_for_a_while_does_not_hold_up_the_others() -> None:
    subscriptions, [batch] = connected(BTC, BTC_TRADES, ETH)
    subscriptions.on_ack(refused(batch, f"{PASSING},topic:{BTC_TRADES}"), 0.0)
    [others] = sent(subscriptions)
    assert [BTC, ETH] == others.args
    subscriptions.on_ack(granted(others), 0.1)
    subscriptions.on_time(1.0)
    [again] = sent(subscriptions)
    assert [BTC_TRADES] == again.args
    subscriptions.on_ack(granted(again), 1.1)
    assert {"confirmed"} == set(subscriptions.states().values())


def test_option_topics_that_fail_for_a_while_are_asked_for_again() -> None:
    subscriptions, _ = connected(CALL, PUT)
    subscriptions.on_ack(Ack(False, None, "", "", (CALL,), (PUT,)), 0.1)
    subscriptions.on_time(1.2)
    assert [[PUT]] == [request.args for request in sent(subscriptions)]


@pytest.mark.parametrize("topic", [BTC, BTC_TRADES])
def test_a_topic_without_acks_is_asked_for_again_later(topic: str) -> None:
    subscriptions, _ = connected(topic)
    for attempt in range(1, MAX_TRIES + 1):
        subscriptions.on_time(ACK_S * attempt)
    subscriptions.take_requests()
    assert {topic: "rejected"} == subscriptions.states()
    subscriptions.on_time(ACK_S * MAX_TRIES + 1.0)
    [again] = sent(subscriptions)
    subscriptions.on_ack(granted(again), 40.0)
    assert {topic: "confirmed"} == subscriptions.states()


def test_a_new_connection_does_not_wait_for_the_pause() -> None:
    subscriptions, [request] = connected(BTC, BTC_TRADES)
    subscriptions.on_ack(refused(request, f"{PASSING},topic:{BTC}"), 0.0)
    subscriptions.on_disconnected()
    subscriptions.take_requests()
    subscriptions.on_connected(0.1)
    assert [[BTC, BTC_TRADES]] == [request.args for request in sent(subscriptions)]


def test_a_topic_that_was_unsubscribed_is_not_asked_for_again() -> None:
    subscriptions, [request] = connected(BTC_TRADES)
    subscriptions.on_ack(refused(request, PASSING), 0.0)
    subscriptions.unsubscribe([BTC_TRADES], 0.5)
    subscriptions.on_time(100.0)
    assert [] == sent(subscriptions)


def test_already_subscribed_counts_as_confirmed() -> None:
    subscriptions, [request] = connected(BTC, ETH)
    subscriptions.on_ack(refused(request, ALREADY + ETH), 0.1)
    [second] = sent(subscriptions)
    assert [BTC] == second.args
    assert {BTC: "pending", ETH: "confirmed"} == subscriptions.states()


@pytest.mark.parametrize("text", ["args size >10", "", NOT_FOUND + "orderbook.50.OTHER"])
def test_after_a_refusal_without_a_name_each_topic_is_sent_alone(text: str) -> None:
    subscriptions, [request] = connected(BTC, ETH, NOPE)
    subscriptions.on_ack(refused(request, text), 0.1)
    alone = sent(subscriptions)
    assert [[BTC], [ETH], [NOPE]] == [request.args for request in alone]
    subscriptions.on_ack(granted(alone[0]), 0.2)
    subscriptions.on_ack(granted(alone[1]), 0.2)
    subscriptions.on_ack(refused(alone[2], "no"), 0.2)
    assert {BTC: "confirmed", ETH: "confirmed", NOPE: "rejected"} == subscriptions.states()
    assert [] == sent(subscriptions)


def test_a_rejected_topic_is_sent_alone_on_the_next_connection() -> None:
    subscriptions, [request] = connected(BTC, NOPE)
    subscriptions.on_ack(refused(request, NOT_FOUND + NOPE), 0.1)
    subscriptions.on_disconnected()
    subscriptions.take_requests()
    subscriptions.on_connected(20.0)
    assert [[BTC], [NOPE]] == [request.args for request in sent(subscriptions)]


def test_topics_above_the_limit_of_a_connection_are_rejected_by_name() -> None:
    topics = [f"orderbook.50.{'X' * 40}{n:04}" for n in range(500)]
    subscriptions, requests = connected(*topics)
    args = [topic for request in requests for topic in request.args]
    assert len(json.dumps(args, separators=(",", ":"))) <= 21_000
    assert topics[: len(args)] == args
    assert set(topics[len(args) :]) == set(subscriptions.rejected())
    assert {"full"} == {event.reason for event in subscriptions.take_events()}


# -- lost acks -----------------------------------------------------------------------------------


def test_a_request_without_an_ack_is_repeated_and_then_its_topics_are_rejected() -> None:
    subscriptions, [first] = connected(BTC)
    for attempt in range(1, MAX_TRIES):
        subscriptions.on_time(ACK_S * attempt - 0.1)
        assert [] == sent(subscriptions)
        subscriptions.on_time(ACK_S * attempt)
        [again] = sent(subscriptions)
        assert [BTC] == again.args
        assert again.req_id != first.req_id
    subscriptions.on_time(ACK_S * MAX_TRIES)
    assert [] == sent(subscriptions)
    assert [("unanswered", BTC, "")] * 2 + [("rejected", BTC, "no_ack")] == kinds(subscriptions)
    assert [] == subscriptions.refused()
    assert MAX_TRIES == subscriptions.unanswered


def test_a_snapshot_of_a_rejected_topic_makes_it_delivering() -> None:
    subscriptions, _ = connected(BTC)
    for attempt in range(1, MAX_TRIES + 1):
        subscriptions.on_time(ACK_S * attempt)
    assert "unexpected" == subscriptions.on_data(BTC, False, 50.0)
    assert "pass" == subscriptions.on_data(BTC, True, 50.0)
    assert {BTC: "delivering"} == subscriptions.states()
    assert {} == subscriptions.rejected()


# -- confirmed without data ----------------------------------------------------------------------


def test_trades_may_be_silent() -> None:
    subscriptions, [request] = connected(BTC_TRADES)
    subscriptions.on_ack(granted(request), 0.0)
    subscriptions.on_time(10_000.0)
    assert [] == sent(subscriptions)
    assert {BTC_TRADES: "confirmed"} == subscriptions.states()


def test_a_confirmed_book_without_a_snapshot_is_retried_and_then_rejected() -> None:
    subscriptions, [request] = connected(BTC, ETH)
    subscriptions.on_ack(granted(request), 0.0)
    subscriptions.on_data(BTC, True, 0.1)
    now, served = 0.0, []
    for _ in range(MAX_TRIES):
        now += ACK_S
        subscriptions.on_time(now)
        for again in sent(subscriptions):  # first unsubscribe, then subscribe
            subscriptions.on_ack(granted(again), now)
            for last in sent(subscriptions):
                subscriptions.on_ack(granted(last), now)
        served.append(subscriptions.states()[BTC])
    assert ["delivering"] * MAX_TRIES == served
    assert "rejected" == subscriptions.states()[ETH]
    events = kinds(subscriptions)
    assert ("rejected", ETH, "no_data") in events
    assert ("silent", ETH, "") in events
    assert "reconnect" not in {kind for kind, _, _ in events}


# -- resync --------------------------------------------------------------------------------------


def test_a_resync_unsubscribes_waits_for_the_ack_and_subscribes_again() -> None:
    subscriptions = delivering(BTC, ETH)
    assert subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    [leave] = sent(subscriptions)
    assert f"unsubscribe ['{BTC}']" == repr(leave)
    assert BTC in subscriptions.flowing, "until the ack its deltas still continue the book"
    subscriptions.on_ack(granted(leave), 5.1)
    [join] = sent(subscriptions)
    assert f"subscribe ['{BTC}']" == repr(join)
    assert {ETH} == subscriptions.flowing
    assert "unexpected" == subscriptions.on_data(BTC, False, 5.2)
    subscriptions.on_ack(granted(join), 5.3)
    assert "pass" == subscriptions.on_data(BTC, True, 5.4)
    assert {BTC, ETH} == subscriptions.flowing
    assert [("unsubscribed", BTC, "resync"), ("subscribed", BTC, "")] == kinds(subscriptions)


def test_repeated_resync_requests_of_a_topic_are_one_resync() -> None:
    subscriptions = delivering(BTC)
    for tenth in range(20):
        subscriptions.resync(BTC, 5.0 + tenth / 10)
        subscriptions.on_time(5.0 + tenth / 10)
    assert f"[unsubscribe ['{BTC}']]" == repr(sent(subscriptions))


def test_resyncs_of_several_topics_share_requests() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(12)]
    subscriptions = delivering(*topics)
    for topic in topics:
        subscriptions.resync(topic, 5.0)
    subscriptions.on_time(5.0)
    assert [10, 2] == [len(request.args) for request in sent(subscriptions)]


def test_a_resync_request_just_after_a_snapshot_is_answered_by_it() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, RESYNC_SETTLE_S / 2)
    subscriptions.on_time(100.0)
    assert [] == sent(subscriptions)


def test_resyncs_of_one_topic_are_rate_limited() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    for _ in range(2):
        for request in sent(subscriptions):
            subscriptions.on_ack(granted(request), 5.01)
    assert "pass" == subscriptions.on_data(BTC, True, 5.02)
    subscriptions.resync(BTC, 5.02 + RESYNC_SETTLE_S)
    subscriptions.on_time(5.02 + RESYNC_SETTLE_S)
    assert [] == sent(subscriptions)
    subscriptions.on_time(5.0 + RESYNC_INTERVAL_S)
    assert f"[unsubscribe ['{BTC}']]" == repr(sent(subscriptions))


def test_a_resync_of_trades_or_of_an_unknown_topic_sends_nothing() -> None:
    subscriptions = delivering(BTC_TRADES)
    assert subscriptions.resync(BTC_TRADES, 5.0)
    assert not subscriptions.resync(ETH, 5.0)
    subscriptions.on_time(5.0)
    assert [] == sent(subscriptions)


def test_resync_requests_retry_a_rejected_book_once_a_minute() -> None:
    subscriptions, [request] = connected(NOPE)
    subscriptions.on_ack(refused(request, NOT_FOUND + NOPE), 0.1)
    tries = []
    for second in range(1, 200):
        subscriptions.resync(NOPE, float(second))
        subscriptions.on_time(float(second))
        for again in sent(subscriptions):
            tries.append((second, again.args))
            subscriptions.on_ack(refused(again, NOT_FOUND + NOPE), float(second))
    assert [(1, [NOPE]), (61, [NOPE]), (121, [NOPE]), (181, [NOPE])] == tries


def test_a_resync_continues_after_a_lost_unsubscribe_ack() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    sent(subscriptions)
    subscriptions.on_time(5.0 + ACK_S)
    assert f"[subscribe ['{BTC}']]" == repr(sent(subscriptions))


def test_a_resync_continues_after_a_refused_unsubscribe() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    [leave] = sent(subscriptions)
    subscriptions.on_ack(refused(leave, NOT_FOUND + BTC), 5.1)
    assert f"[subscribe ['{BTC}']]" == repr(sent(subscriptions))


def test_a_resync_without_a_snapshot_leads_to_a_reconnect() -> None:
    subscriptions = delivering(BTC, ETH)
    subscriptions.resync(BTC, 5.0)
    now = 5.0
    for _ in range(4 * MAX_TRIES):
        subscriptions.on_time(now)
        for request in sent(subscriptions):
            subscriptions.on_ack(granted(request), now)
        now += ACK_S / 2
    events = kinds(subscriptions)
    assert [("reconnect", BTC, "resync")] == [event for event in events if event[0] == "reconnect"]
    assert "delivering" == subscriptions.states()[ETH]


def test_a_book_without_a_snapshot_after_the_reconnect_is_rejected() -> None:
    """A dead symbol causes one reconnect, not an endless series, and ever fewer requests."""
    subscriptions = delivering(BTC, ETH)
    subscriptions.resync(BTC, 5.0)
    now, reconnects, rejected_at = 5.0, 0, []
    for _ in range(200):
        subscriptions.on_time(now)
        for request in sent(subscriptions):
            subscriptions.on_ack(granted(request), now)
        events = subscriptions.take_events()
        if ("rejected", "no_data") in [(event.kind, event.reason) for event in events]:
            rejected_at.append(now)
            assert {BTC: "rejected", ETH: "delivering"} == subscriptions.states()
        if any(event.kind == "reconnect" for event in events):
            reconnects += 1
            subscriptions.on_disconnected()
            subscriptions.on_connected(now)
        subscriptions.on_data(ETH, True, now)
        now += ACK_S / 2
    assert 1 == reconnects
    pauses = [later - earlier for earlier, later in pairwise(rejected_at)]
    assert sorted(pauses) == pauses
    assert pauses[-1] >= 60.0


# -- while connected -----------------------------------------------------------------------------


def test_a_topic_is_added_without_touching_the_others() -> None:
    subscriptions = delivering(BTC)
    subscriptions.subscribe([BTC, ETH], 5.0)
    assert f"[subscribe ['{ETH}']]" == repr(sent(subscriptions))
    assert {BTC} == subscriptions.flowing


def test_data_of_an_unsubscribed_topic_is_dropped_at_once() -> None:
    subscriptions = delivering(BTC, ETH)
    subscriptions.unsubscribe([BTC, "orderbook.50.UNKNOWN"], 5.0)
    [leave] = sent(subscriptions)
    assert f"unsubscribe ['{BTC}']" == repr(leave)
    assert {ETH: "delivering"} == subscriptions.states()
    assert "unexpected" == subscriptions.on_data(BTC, False, 5.1)
    assert "unexpected" == subscriptions.on_data(BTC, True, 5.1)
    subscriptions.on_ack(granted(leave), 5.2)
    subscriptions.on_disconnected()
    subscriptions.on_connected(10.0)
    assert [[ETH]] == [request.args for request in sent(subscriptions)]


def test_an_unsubscribe_without_an_ack_counts_as_done() -> None:
    subscriptions = delivering(BTC)
    subscriptions.unsubscribe([BTC], 5.0)
    sent(subscriptions)
    subscriptions.on_time(5.0 + ACK_S)
    assert [] == sent(subscriptions)
    assert "unknown" == subscriptions.on_data(BTC, True, 20.0)


def test_a_topic_subscribed_again_during_its_unsubscribe_gets_a_snapshot() -> None:
    subscriptions = delivering(BTC)
    subscriptions.unsubscribe([BTC], 5.0)
    [leave] = sent(subscriptions)
    subscriptions.subscribe([BTC], 5.1)
    assert {BTC: "pending"} == subscriptions.states()
    subscriptions.on_ack(granted(leave), 5.2)
    assert f"[subscribe ['{BTC}']]" == repr(sent(subscriptions))
    assert "unexpected" == subscriptions.on_data(BTC, False, 5.3)
    assert "pass" == subscriptions.on_data(BTC, True, 5.3)


def test_without_a_connection_an_unsubscribed_topic_is_removed_at_once() -> None:
    subscriptions = delivering(BTC)
    subscriptions.on_disconnected()
    subscriptions.unsubscribe([BTC], 5.0)
    subscriptions.on_connected(6.0)
    assert [] == sent(subscriptions)
    assert {} == subscriptions.states()


def test_after_a_lost_connection_every_book_waits_for_its_snapshot() -> None:
    subscriptions = delivering(BTC)
    subscriptions.on_disconnected()
    assert set() == subscriptions.flowing
    assert {BTC: "pending"} == subscriptions.states()
    subscriptions.on_connected(10.0)
    assert "unexpected" == subscriptions.on_data(BTC, False, 10.1)
    assert "pass" == subscriptions.on_data(BTC, True, 10.2)


# -- against an unreliable exchange --------------------------------------------------------------


class Venue:
    """
    Bybit's documented behaviour: a request is served as a whole or not at all.

    Each mishap is a lost ack or, on spot, an ack without its id.
    """

    def __init__(self, bad: set[str], category: str, mishaps: Iterator[bool]) -> None:
        self.bad = bad
        self.category = category
        self._mishaps = mishaps
        self.subscribed: set[str] = set()
        self.streaming: set[str] = set()

    def answer(self, request: Request) -> tuple[list[Ack], list[str]]:
        """The acks, and the topics that get a snapshot."""
        ack = granted(request)
        fresh: list[str] = []
        if self.category == "spot":
            ack = ack._replace(req_id="" if next(self._mishaps) else request.req_id)
        offender = self._offender(request)
        if self.category == "option":
            failed = [topic for topic in request.args if topic in self.bad]
            good = [topic for topic in request.args if topic not in self.bad]
            ack = Ack(not failed, None, "", "", tuple(good), tuple(failed))
            fresh = self._apply(request.op, good)
        elif offender is not None:
            ack = ack._replace(success=False, text=offender)
        else:
            fresh = self._apply(request.op, request.args)
        return ([] if next(self._mishaps) else [ack]), fresh

    def _offender(self, request: Request) -> str | None:
        for topic in request.args if request.op == "subscribe" else ():
            if topic in self.bad:
                return (
                    f"Invalid symbol :[{topic}]" if self.category == "spot" else NOT_FOUND + topic
                )
            if topic in self.subscribed:
                return ALREADY + topic
        return None

    def _apply(self, op: str, topics: list[str]) -> list[str]:
        if op == "unsubscribe":
            self.subscribed -= set(topics)
            return []
        fresh = [topic for topic in topics if topic not in self.subscribed]
        self.subscribed |= set(topics)
        return fresh


@settings(max_examples=150)
@given(
    category=st.sampled_from(["linear", "spot", "option"]),
    bad=st.sets(st.integers(0, 24), max_size=5),
    mishaps=st.lists(st.booleans(), max_size=90).filter(lambda all_: sum(all_) < MAX_TRIES),
    resyncs=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 50)), max_size=10),
)
def test_every_good_topic_is_served_in_the_end_despite_lost_acks_and_bad_topics(
    category: str, bad: set[int], mishaps: list[bool], resyncs: list[tuple[int, int]]
) -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(25)]

    # Fewer than MAX_TRIES in total: that many lost acks of one topic would reject it.
    endless = chain(mishaps, repeat(False))
    venue = Venue({topics[n] for n in bad}, category, endless)
    subscriptions = Subscriptions(ack_timeout_s=ACK_S)
    subscriptions.subscribe(topics, 0.0)
    subscriptions.on_connected(0.0)
    live: set[str] = set()
    for step in range(120):
        now = step * 2.0
        for number, at in resyncs:
            if at == step:
                subscriptions.resync(topics[number], now)
        subscriptions.on_time(now)
        while requests := sent(subscriptions):
            for request in requests:
                assert len(request.args) <= TOPICS_PER_REQUEST_MAX
                acks, fresh = venue.answer(request)
                for ack in acks:
                    subscriptions.on_ack(ack, now)
                for topic in fresh:
                    if topic in subscriptions.flowing or (
                        subscriptions.on_data(topic, True, now) == "pass"
                    ):
                        live.add(topic)
        assert "reconnect" not in {event.kind for event in subscriptions.take_events()}
    good = {topic for n, topic in enumerate(topics) if n not in bad}
    assert good == {t for t, state in subscriptions.states().items() if state == "delivering"}
    assert venue.bad == set(subscriptions.rejected())
    assert subscriptions.flowing == good <= live
    assert good == venue.subscribed


def test_every_request_id_is_unique_and_short() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(100)]
    _, requests = connected(*topics)
    ids = [request.req_id for request in requests]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w{1,36}", req_id) for req_id in ids)
