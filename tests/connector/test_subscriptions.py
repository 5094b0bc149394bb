"""Requests, acks, refusals, resyncs: what one connection is subscribed to."""

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.connector.protocol import Ack, Op
from bybit_pipeline.processes.connector.subscriptions import (
    MAX_TRIES,
    RESYNC_INTERVAL_S,
    RESYNC_SETTLE_S,
    Event,
    Subscriptions,
)
from bybit_pipeline.shared.bybit import TOPICS_PER_REQUEST_MAX

BTC, ETH, NOPE = "orderbook.50.BTCUSDT", "orderbook.50.ETHUSDT", "orderbook.50.NOPEUSDT"
BTC_TRADES = "publicTrade.BTCUSDT"
ACK_S = 10.0
NOT_FOUND = "error:handler not found,topic:"
ALREADY = "error:already subscribed,topic:"


class Request:
    """A request as the venue reads it."""

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
    """Subscriptions whose topics have all been acked and delivered at time 0."""
    subscriptions, requests = connected(*topics)
    for request in requests:
        subscriptions.on_ack(granted(request), 0.0)
    for topic in topics:
        assert subscriptions.on_data(topic, True, 0.0) == "pass"
    subscriptions.take_events()
    return subscriptions


def kinds(subscriptions: Subscriptions) -> list[tuple[str, str, str]]:
    return [(event.kind, event.topic, event.reason) for event in subscriptions.take_events()]


# -- subscribing ---------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_connection_stands() -> None:
    subscriptions = Subscriptions(ack_timeout_s=ACK_S)
    subscriptions.subscribe([BTC], 0.0)
    subscriptions.on_time(100.0)
    assert sent(subscriptions) == []
    assert subscriptions.states() == {BTC: "pending"}


def test_requests_hold_at_most_ten_topics_and_have_their_own_ids() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(25)]
    _, requests = connected(*topics)
    assert [len(request.args) for request in requests] == [10, 10, 5]
    assert [topic for request in requests for topic in request.args] == topics
    assert len({request.req_id for request in requests}) == 3


def test_ids_are_not_used_again_on_the_next_connection() -> None:
    subscriptions, [first] = connected(BTC)
    subscriptions.on_disconnected()
    subscriptions.on_connected(20.0)
    [second] = sent(subscriptions)
    assert first.req_id != second.req_id
    assert second.args == [BTC]


def test_a_topic_that_is_none_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match=r"kline\.1\.BTCUSDT"):
        Subscriptions(ack_timeout_s=ACK_S).subscribe(["kline.1.BTCUSDT"], 0.0)


def test_topics_go_from_pending_over_confirmed_to_delivering() -> None:
    subscriptions, [request] = connected(BTC, BTC_TRADES)
    assert subscriptions.states() == {BTC: "pending", BTC_TRADES: "pending"}
    subscriptions.on_ack(granted(request), 0.1)
    assert subscriptions.states() == {BTC: "confirmed", BTC_TRADES: "confirmed"}
    assert kinds(subscriptions) == [("subscribed", BTC, ""), ("subscribed", BTC_TRADES, "")]
    assert subscriptions.on_data(BTC, True, 0.2) == "pass"
    assert subscriptions.states() == {BTC: "delivering", BTC_TRADES: "confirmed"}
    assert subscriptions.flowing == {BTC}
    assert kinds(subscriptions) == []


def test_data_before_the_ack_counts_as_the_ack() -> None:
    subscriptions, [request] = connected(BTC)
    assert subscriptions.on_data(BTC, True, 0.1) == "pass"
    assert kinds(subscriptions) == [("subscribed", BTC, "")]
    subscriptions.on_ack(granted(request), 0.2)
    subscriptions.on_time(100.0)
    assert subscriptions.states() == {BTC: "delivering"}
    assert sent(subscriptions) == []
    assert kinds(subscriptions) == []


def test_a_delta_before_the_snapshot_is_dropped_and_counted() -> None:
    subscriptions, [request] = connected(BTC)
    subscriptions.on_ack(granted(request), 0.1)
    assert subscriptions.on_data(BTC, False, 0.2) == "unexpected"
    assert subscriptions.unexpected == 1
    assert subscriptions.flowing == set()


def test_a_topic_nobody_asked_for_is_unknown() -> None:
    assert delivering(BTC).on_data(ETH, True, 1.0) == "unknown"


def test_a_spot_ack_without_id_answers_the_oldest_request_of_its_kind() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(20)]
    subscriptions, _ = connected(*topics)
    subscriptions.on_ack(Ack(True, "subscribe", "", "subscribe"), 0.1)
    states = subscriptions.states()
    assert [states[topic] for topic in topics] == ["confirmed"] * 10 + ["pending"] * 10


def test_an_ack_with_an_unknown_id_changes_nothing() -> None:
    subscriptions, _ = connected(BTC)
    subscriptions.on_ack(Ack(True, "subscribe", "strange", ""), 0.1)
    assert subscriptions.states() == {BTC: "pending"}
    assert subscriptions.unmatched == 1


# -- options -------------------------------------------------------------------------------------

CALL, PUT = "orderbook.25.BTC-30OCT26-100000-C", "orderbook.25.BTC-30OCT26-100000-P"


def test_an_option_ack_is_matched_by_its_topics() -> None:
    subscriptions, _ = connected(CALL, PUT, "publicTrade.BTC")
    subscriptions.on_ack(Ack(True, None, "", "", (CALL, "publicTrade.BTC")), 0.1)
    assert subscriptions.states() == {
        CALL: "confirmed",
        PUT: "pending",
        "publicTrade.BTC": "confirmed",
    }
    subscriptions.on_ack(Ack(True, None, "", "", (PUT,)), 0.2)
    assert subscriptions.states()[PUT] == "confirmed"


def test_an_option_topic_in_fail_topics_is_rejected_alone() -> None:
    subscriptions, _ = connected(CALL, PUT)
    subscriptions.on_ack(Ack(False, None, "", "", (CALL,), (PUT,)), 0.1)
    assert subscriptions.states() == {CALL: "confirmed", PUT: "rejected"}
    assert PUT in subscriptions.rejected()


def test_option_topics_that_an_ack_leaves_out_are_sent_again() -> None:
    subscriptions, _ = connected(CALL, PUT)
    subscriptions.on_ack(Ack(True, None, "", "", (CALL,)), 0.1)
    subscriptions.on_time(ACK_S)
    assert [request.args for request in sent(subscriptions)] == [[PUT]]


def test_an_option_unsubscribe_ack_ends_a_resync() -> None:
    subscriptions = delivering(CALL, PUT)
    subscriptions.resync(CALL, 5.0)
    subscriptions.on_time(5.0)
    subscriptions.take_requests()
    subscriptions.on_ack(Ack(True, None, "", "", (CALL,)), 5.1)
    assert repr(sent(subscriptions)) == f"[subscribe ['{CALL}']]"
    assert subscriptions.flowing == {PUT}


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [NOT_FOUND + NOPE, f"Invalid symbol :[{NOPE}]"])
def test_the_named_topic_is_dropped_and_the_rest_sent_again(text: str) -> None:
    subscriptions, [request] = connected(BTC, NOPE, ETH)
    subscriptions.on_ack(refused(request, text), 0.1)
    [second] = sent(subscriptions)
    assert second.args == [BTC, ETH]
    subscriptions.on_ack(granted(second), 0.2)
    assert subscriptions.states() == {BTC: "confirmed", NOPE: "rejected", ETH: "confirmed"}
    assert subscriptions.rejected() == {NOPE: text}
    assert subscriptions.refused() == [NOPE]
    assert Event("rejected", NOPE, "refused", text) in subscriptions.take_events()


def test_already_subscribed_is_confirmed() -> None:
    subscriptions, [request] = connected(BTC, ETH)
    subscriptions.on_ack(refused(request, ALREADY + ETH), 0.1)
    [second] = sent(subscriptions)
    assert second.args == [BTC]
    assert subscriptions.states() == {BTC: "pending", ETH: "confirmed"}


@pytest.mark.parametrize("text", ["args size >10", "", NOT_FOUND + "orderbook.50.OTHER"])
def test_a_refusal_that_names_none_of_them_is_repaired_one_by_one(text: str) -> None:
    subscriptions, [request] = connected(BTC, ETH, NOPE)
    subscriptions.on_ack(refused(request, text), 0.1)
    alone = sent(subscriptions)
    assert [request.args for request in alone] == [[BTC], [ETH], [NOPE]]
    subscriptions.on_ack(granted(alone[0]), 0.2)
    subscriptions.on_ack(granted(alone[1]), 0.2)
    subscriptions.on_ack(refused(alone[2], "no"), 0.2)
    assert subscriptions.states() == {BTC: "confirmed", ETH: "confirmed", NOPE: "rejected"}
    assert sent(subscriptions) == []


def test_a_rejected_topic_is_tried_alone_on_the_next_connection() -> None:
    subscriptions, [request] = connected(BTC, NOPE)
    subscriptions.on_ack(refused(request, NOT_FOUND + NOPE), 0.1)
    subscriptions.on_disconnected()
    subscriptions.take_requests()
    subscriptions.on_connected(20.0)
    assert [request.args for request in sent(subscriptions)] == [[BTC], [NOPE]]


def test_topics_beyond_the_budget_of_a_connection_are_rejected_by_name() -> None:
    topics = [f"orderbook.50.{'X' * 40}{n:04}" for n in range(500)]
    subscriptions, requests = connected(*topics)
    args = [topic for request in requests for topic in request.args]
    assert len(json.dumps(args, separators=(",", ":"))) <= 21_000
    assert args == topics[: len(args)]
    assert set(subscriptions.rejected()) == set(topics[len(args) :])
    assert {event.reason for event in subscriptions.take_events()} == {"full"}


# -- lost acks -----------------------------------------------------------------------------------


def test_a_request_without_an_ack_is_sent_again_then_given_up_by_name() -> None:
    subscriptions, [first] = connected(BTC)
    for attempt in range(1, MAX_TRIES):
        subscriptions.on_time(ACK_S * attempt - 0.1)
        assert sent(subscriptions) == []
        subscriptions.on_time(ACK_S * attempt)
        [again] = sent(subscriptions)
        assert again.args == [BTC]
        assert again.req_id != first.req_id
    subscriptions.on_time(ACK_S * MAX_TRIES)
    assert sent(subscriptions) == []
    assert kinds(subscriptions) == [("unanswered", BTC, "")] * 2 + [("rejected", BTC, "no_ack")]
    assert subscriptions.refused() == []
    assert subscriptions.unanswered == MAX_TRIES


def test_a_rejected_topic_whose_snapshot_comes_after_all_is_delivering() -> None:
    subscriptions, _ = connected(BTC)
    for attempt in range(1, MAX_TRIES + 1):
        subscriptions.on_time(ACK_S * attempt)
    assert subscriptions.on_data(BTC, False, 50.0) == "unexpected"
    assert subscriptions.on_data(BTC, True, 50.0) == "pass"
    assert subscriptions.states() == {BTC: "delivering"}
    assert subscriptions.rejected() == {}


# -- confirmed, but silent -----------------------------------------------------------------------


def test_trades_may_be_silent() -> None:
    subscriptions, [request] = connected(BTC_TRADES)
    subscriptions.on_ack(granted(request), 0.0)
    subscriptions.on_time(10_000.0)
    assert sent(subscriptions) == []
    assert subscriptions.states() == {BTC_TRADES: "confirmed"}


def test_a_book_that_is_confirmed_but_never_comes_is_noticed_and_named() -> None:
    subscriptions, [request] = connected(BTC, ETH)
    subscriptions.on_ack(granted(request), 0.0)
    subscriptions.on_data(BTC, True, 0.1)
    now, served = 0.0, []
    for _ in range(MAX_TRIES):
        now += ACK_S
        subscriptions.on_time(now)
        for again in sent(subscriptions):  # unsubscribe, and then subscribe
            subscriptions.on_ack(granted(again), now)
            for last in sent(subscriptions):
                subscriptions.on_ack(granted(last), now)
        served.append(subscriptions.states()[BTC])
    assert served == ["delivering"] * MAX_TRIES
    assert subscriptions.states()[ETH] == "rejected"
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
    assert repr(leave) == f"unsubscribe ['{BTC}']"
    assert BTC in subscriptions.flowing, "until the ack its deltas still continue the book"
    subscriptions.on_ack(granted(leave), 5.1)
    [join] = sent(subscriptions)
    assert repr(join) == f"subscribe ['{BTC}']"
    assert subscriptions.flowing == {ETH}
    assert subscriptions.on_data(BTC, False, 5.2) == "unexpected"
    subscriptions.on_ack(granted(join), 5.3)
    assert subscriptions.on_data(BTC, True, 5.4) == "pass"
    assert subscriptions.flowing == {BTC, ETH}
    assert kinds(subscriptions) == [("unsubscribed", BTC, "resync"), ("subscribed", BTC, "")]


def test_many_resync_requests_of_a_topic_are_one() -> None:
    subscriptions = delivering(BTC)
    for tenth in range(20):
        subscriptions.resync(BTC, 5.0 + tenth / 10)
        subscriptions.on_time(5.0 + tenth / 10)
    assert repr(sent(subscriptions)) == f"[unsubscribe ['{BTC}']]"


def test_resyncs_of_many_topics_share_requests() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(12)]
    subscriptions = delivering(*topics)
    for topic in topics:
        subscriptions.resync(topic, 5.0)
    subscriptions.on_time(5.0)
    assert [len(request.args) for request in sent(subscriptions)] == [10, 2]


def test_a_request_that_crossed_the_snapshot_on_its_way_is_answered_by_it() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, RESYNC_SETTLE_S / 2)
    subscriptions.on_time(100.0)
    assert sent(subscriptions) == []


def test_resyncs_of_one_topic_are_rate_limited() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    for _ in range(2):
        for request in sent(subscriptions):
            subscriptions.on_ack(granted(request), 5.01)
    assert subscriptions.on_data(BTC, True, 5.02) == "pass"
    subscriptions.resync(BTC, 5.02 + RESYNC_SETTLE_S)
    subscriptions.on_time(5.02 + RESYNC_SETTLE_S)
    assert sent(subscriptions) == []
    subscriptions.on_time(5.0 + RESYNC_INTERVAL_S)
    assert repr(sent(subscriptions)) == f"[unsubscribe ['{BTC}']]"


def test_a_resync_of_trades_or_of_an_unknown_topic_sends_nothing() -> None:
    subscriptions = delivering(BTC_TRADES)
    assert subscriptions.resync(BTC_TRADES, 5.0)
    assert not subscriptions.resync(ETH, 5.0)
    subscriptions.on_time(5.0)
    assert sent(subscriptions) == []


def test_a_rejected_book_is_tried_again_now_and_then_when_its_snapshot_is_asked_for() -> None:
    subscriptions, [request] = connected(NOPE)
    subscriptions.on_ack(refused(request, NOT_FOUND + NOPE), 0.1)
    tries = []
    for second in range(1, 200):
        subscriptions.resync(NOPE, float(second))
        subscriptions.on_time(float(second))
        for again in sent(subscriptions):
            tries.append((second, again.args))
            subscriptions.on_ack(refused(again, NOT_FOUND + NOPE), float(second))
    assert tries == [(1, [NOPE]), (61, [NOPE]), (121, [NOPE]), (181, [NOPE])]


def test_a_resync_survives_a_lost_unsubscribe_ack() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    sent(subscriptions)
    subscriptions.on_time(5.0 + ACK_S)
    assert repr(sent(subscriptions)) == f"[subscribe ['{BTC}']]"


def test_a_resync_whose_unsubscribe_was_refused_goes_on() -> None:
    subscriptions = delivering(BTC)
    subscriptions.resync(BTC, 5.0)
    subscriptions.on_time(5.0)
    [leave] = sent(subscriptions)
    subscriptions.on_ack(refused(leave, NOT_FOUND + BTC), 5.1)
    assert repr(sent(subscriptions)) == f"[subscribe ['{BTC}']]"


def test_a_resync_without_a_snapshot_ends_in_a_reconnect() -> None:
    subscriptions = delivering(BTC, ETH)
    subscriptions.resync(BTC, 5.0)
    now = 5.0
    for _ in range(4 * MAX_TRIES):
        subscriptions.on_time(now)
        for request in sent(subscriptions):
            subscriptions.on_ack(granted(request), now)
        now += ACK_S / 2
    events = kinds(subscriptions)
    assert [event for event in events if event[0] == "reconnect"] == [("reconnect", BTC, "resync")]
    assert subscriptions.states()[ETH] == "delivering"


def test_after_the_reconnect_a_book_that_still_does_not_come_is_rejected() -> None:
    """One dead symbol costs one reconnect, not one after the other."""
    subscriptions = delivering(BTC, ETH)
    subscriptions.resync(BTC, 5.0)
    now, reconnects = 5.0, 0
    for _ in range(100):
        subscriptions.on_time(now)
        for request in sent(subscriptions):
            subscriptions.on_ack(granted(request), now)
        if any(event.kind == "reconnect" for event in subscriptions.take_events()):
            reconnects += 1
            subscriptions.on_disconnected()
            subscriptions.on_connected(now)
        subscriptions.on_data(ETH, True, now)
        now += ACK_S / 2
    assert reconnects == 1
    assert subscriptions.states() == {BTC: "rejected", ETH: "delivering"}


# -- at run time ---------------------------------------------------------------------------------


def test_a_topic_can_be_added_without_touching_the_others() -> None:
    subscriptions = delivering(BTC)
    subscriptions.subscribe([BTC, ETH], 5.0)
    assert repr(sent(subscriptions)) == f"[subscribe ['{ETH}']]"
    assert subscriptions.flowing == {BTC}


def test_an_unsubscribed_topic_is_dropped_at_once() -> None:
    subscriptions = delivering(BTC, ETH)
    subscriptions.unsubscribe([BTC, "orderbook.50.UNKNOWN"], 5.0)
    [leave] = sent(subscriptions)
    assert repr(leave) == f"unsubscribe ['{BTC}']"
    assert subscriptions.states() == {ETH: "delivering"}
    assert subscriptions.on_data(BTC, False, 5.1) == "unexpected"
    assert subscriptions.on_data(BTC, True, 5.1) == "unexpected"
    subscriptions.on_ack(granted(leave), 5.2)
    subscriptions.on_disconnected()
    subscriptions.on_connected(10.0)
    assert [request.args for request in sent(subscriptions)] == [[ETH]]


def test_an_unsubscribe_without_an_ack_is_done_all_the_same() -> None:
    subscriptions = delivering(BTC)
    subscriptions.unsubscribe([BTC], 5.0)
    sent(subscriptions)
    subscriptions.on_time(5.0 + ACK_S)
    assert sent(subscriptions) == []
    assert subscriptions.on_data(BTC, True, 20.0) == "unknown"


def test_a_topic_wanted_again_while_it_leaves_comes_back_with_a_snapshot() -> None:
    subscriptions = delivering(BTC)
    subscriptions.unsubscribe([BTC], 5.0)
    [leave] = sent(subscriptions)
    subscriptions.subscribe([BTC], 5.1)
    assert subscriptions.states() == {BTC: "pending"}
    subscriptions.on_ack(granted(leave), 5.2)
    assert repr(sent(subscriptions)) == f"[subscribe ['{BTC}']]"
    assert subscriptions.on_data(BTC, False, 5.3) == "unexpected"
    assert subscriptions.on_data(BTC, True, 5.3) == "pass"


def test_an_unsubscribed_topic_is_forgotten_when_there_is_no_connection() -> None:
    subscriptions = delivering(BTC)
    subscriptions.on_disconnected()
    subscriptions.unsubscribe([BTC], 5.0)
    subscriptions.on_connected(6.0)
    assert sent(subscriptions) == []
    assert subscriptions.states() == {}


def test_after_a_lost_connection_every_book_waits_for_its_snapshot() -> None:
    subscriptions = delivering(BTC)
    subscriptions.on_disconnected()
    assert subscriptions.flowing == set()
    assert subscriptions.states() == {BTC: "pending"}
    subscriptions.on_connected(10.0)
    assert subscriptions.on_data(BTC, False, 10.1) == "unexpected"
    assert subscriptions.on_data(BTC, True, 10.2) == "pass"


# -- against a venue with moods ------------------------------------------------------------------


class Venue:
    """Bybit's documented behaviour, all-or-nothing, with acks that may be lost."""

    def __init__(self, bad: set[str], category: str, moods: Iterator[bool]) -> None:
        self.bad = bad
        self.category = category
        self.moods = moods
        self.subscribed: set[str] = set()
        self.streaming: set[str] = set()

    def answer(self, request: Request) -> tuple[list[Ack], list[str]]:
        """The acks, and the topics whose snapshot follows."""
        ack = granted(request)
        fresh: list[str] = []
        if self.category == "spot":
            ack = ack._replace(req_id="" if next(self.moods) else request.req_id)
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
        return ([] if next(self.moods) else [ack]), fresh

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
    moods=st.lists(st.booleans(), max_size=90).filter(lambda moods: sum(moods) < MAX_TRIES),
    resyncs=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 50)), max_size=10),
)
def test_with_lost_acks_and_bad_topics_every_good_topic_is_served_in_the_end(
    category: str, bad: set[int], moods: list[bool], resyncs: list[tuple[int, int]]
) -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(25)]

    def losses() -> Iterator[bool]:
        # Fewer than MAX_TRIES in all: so many of one topic in a row would have it rejected.
        yield from moods
        while True:
            yield False

    venue = Venue({topics[n] for n in bad}, category, losses())
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
    assert {t for t, state in subscriptions.states().items() if state == "delivering"} == good
    assert set(subscriptions.rejected()) == venue.bad
    assert subscriptions.flowing == good <= live
    assert venue.subscribed == good


def test_every_request_id_is_unique_and_short() -> None:
    topics = [f"orderbook.50.S{n}USDT" for n in range(100)]
    _, requests = connected(*topics)
    ids = [request.req_id for request in requests]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"\w{1,36}", req_id) for req_id in ids)
