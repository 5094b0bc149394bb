"""The trades of many symbols: duplicates, links, sources, time, unknown numbers."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.shared.wire.messages import (
    Category,
    LinkEvent,
    Trade,
    TradesMessage,
)
from tests.trades.build import T0, link, metrics, metrics_of, our_ns, trade, trades_message


class TestSingleTrades:
    """Use as a library: subscribe, add trades, call getters."""

    def test_trades_per_minute_and_per_second_are_counted(
        self, aggregator: TradesAggregator
    ) -> None:
        for second in range(30):
            assert aggregator.add_trade("BTCUSDT", trade(second * 1_000))
        assert 30.0 == aggregator.get_tpm("BTCUSDT", "60s")
        assert 60.0 == aggregator.get_tpm("BTCUSDT", "10s")
        assert 1.0 == aggregator.get_tps("BTCUSDT")

    def test_volume_delta_is_bought_minus_sold(self, aggregator: TradesAggregator) -> None:
        aggregator.add_trade("BTCUSDT", trade(0, "Buy", size=0.3))
        aggregator.add_trade("BTCUSDT", trade(1, "Sell", size=0.1))
        assert 0.2 == aggregator.get_vol_delta("BTCUSDT", "60s")

    def test_the_buy_sell_ratio_is_absent_without_sells(self, aggregator: TradesAggregator) -> None:
        aggregator.add_trade("BTCUSDT", trade(0, "Buy", size=0.3))
        assert aggregator.get_buy_sell_ratio("BTCUSDT", "60s") is None
        aggregator.add_trade("BTCUSDT", trade(1, "Sell", size=0.1))
        assert 3.0 == aggregator.get_buy_sell_ratio("BTCUSDT", "60s")

    def test_old_trades_leave_the_windows(self, aggregator: TradesAggregator) -> None:
        aggregator.add_trade("BTCUSDT", trade(0))
        aggregator.add_trade("BTCUSDT", trade(60_000))
        assert 1.0 == aggregator.get_tpm("BTCUSDT", "60s")
        assert 0.4 == aggregator.get_tpm("BTCUSDT", "300s")

    def test_an_unknown_symbol_has_no_numbers(self, aggregator: TradesAggregator) -> None:
        assert not aggregator.add_trade("ETHUSDT", trade(0))
        assert aggregator.get_tpm("ETHUSDT", "60s") is None
        assert aggregator.get_tps("ETHUSDT") is None
        assert aggregator.get_vol_delta("ETHUSDT", "60s") is None
        assert aggregator.get_buy_sell_ratio("ETHUSDT", "60s") is None

    def test_a_subscribed_symbol_without_trades_has_no_numbers(
        self, aggregator: TradesAggregator
    ) -> None:
        assert aggregator.get_tpm("BTCUSDT", "60s") is None
        assert aggregator.get_tps("BTCUSDT") is None

    def test_a_window_that_is_not_configured_has_no_numbers(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.add_trade("BTCUSDT", trade(0))
        assert aggregator.get_tpm("BTCUSDT", "7s") is None

    def test_unsubscribing_forgets_the_symbol(self, aggregator: TradesAggregator) -> None:
        aggregator.add_trade("BTCUSDT", trade(0))
        aggregator.unsubscribe("BTCUSDT")
        assert aggregator.get_tpm("BTCUSDT", "60s") is None
        aggregator.subscribe("BTCUSDT")
        assert aggregator.get_tpm("BTCUSDT", "60s") is None

    def test_the_same_symbol_of_two_categories_is_two_markets(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.subscribe("BTCUSDT", "spot")
        aggregator.add_trade("BTCUSDT", trade(0, trade_id="1"))
        aggregator.add_trade("BTCUSDT", trade(0, trade_id="1", size=5.0), category="spot")
        assert 1.0 == aggregator.get_vol_delta("BTCUSDT", "60s")
        assert 5.0 == aggregator.get_vol_delta("BTCUSDT", "60s", category="spot")

    def test_a_trade_that_comes_twice_counts_once(self, aggregator: TradesAggregator) -> None:
        assert aggregator.add_trade("BTCUSDT", trade(0, trade_id="a"))
        assert not aggregator.add_trade("BTCUSDT", trade(0, trade_id="a"))
        assert 1.0 == aggregator.get_vol_delta("BTCUSDT", "60s")
        assert (1, 1) == (aggregator.counts.taken, aggregator.counts.duplicates)

    def test_an_implausible_price_is_rejected(self, aggregator: TradesAggregator) -> None:
        with pytest.raises(ValueError, match="price nan"):
            aggregator.add_trade("BTCUSDT", trade(0, price=float("nan")))
        assert aggregator.get_tpm("BTCUSDT", "60s") is None

    def test_a_window_that_is_not_a_duration_is_rejected(self) -> None:
        with pytest.raises(ValueError, match="window"):
            TradesAggregator(["sixty"])


class TestObservation:
    """When a market is warming, live or stale, and how much of its windows is covered."""

    def test_a_market_is_warming_without_numbers_before_the_first_message(
        self, aggregator: TradesAggregator
    ) -> None:
        fields = metrics(aggregator, 0)
        assert ("warming", "starting") == (fields["state"], fields["reason"])
        tape = aggregator.tape("BTCUSDT")
        assert tape is not None
        assert tape.source is None
        assert fields["tps"] is None
        assert fields["last_price"] is None
        assert 0 == fields["trades_total"]
        window = fields["windows"]["60s"]
        assert 0.0 == window.pop("coverage_s")
        assert {None} == set(window.values())

    def test_a_confirmed_subscription_is_observed_before_the_first_trade(
        self, aggregator: TradesAggregator
    ) -> None:
        """
        This also holds while the exchange's time is unknown: there were no trades.

        The first message may have been held up for three seconds, so these are not covered.
        """
        aggregator.apply_link("", link("subscribed", 0))
        fields = metrics(aggregator, 4_000)
        assert ("warming", "sim") == (fields["state"], fields["source"])
        assert 1.0 == fields["windows"]["10s"]["coverage_s"]
        assert 0 == fields["windows"]["10s"]["trades"]
        assert 0.0 == fields["windows"]["10s"]["volume"]
        assert fields["windows"]["10s"]["vwap"] is None
        aggregator.apply(trades_message(5_000, [trade(4_999)]), "BTCUSDT")
        assert 3.0 == metrics(aggregator, 6_000)["windows"]["10s"]["coverage_s"]

    def test_without_the_confirmation_observation_starts_with_the_first_trade(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(1_000, [trade(1_000)]), "BTCUSDT")
        assert 2.5 == metrics(aggregator, 3_500)["windows"]["10s"]["coverage_s"]

    def test_a_market_is_live_once_the_longest_window_is_covered_even_without_trades(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        assert "warming" == metrics(aggregator, 299_999)["state"]
        fields = metrics(aggregator, 300_000)
        assert ("live", None) == (fields["state"], fields["reason"])
        assert 0 == fields["windows"]["300s"]["trades"]
        assert 300.0 == fields["windows"]["300s"]["coverage_s"]
        assert 100.0 == fields["last_price"]
        assert 1 == fields["trades_total"]

    def test_a_lost_link_is_stale_at_once_and_reduces_coverage_until_it_leaves_the_windows(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        aggregator.apply(trades_message(300_000, [trade(300_000)]), "BTCUSDT")
        assert "live" == metrics(aggregator, 300_000)["state"]
        aggregator.apply_link("", link("disconnected", 305_000))
        fields = metrics(aggregator, 310_000)
        assert ("stale", "disconnected") == (fields["state"], fields["reason"])
        assert 1 == fields["windows"]["60s"]["trades"]
        assert 50.0 == fields["windows"]["60s"]["coverage_s"]
        aggregator.apply_link("", link("subscribed", 315_000, session=2))
        fields = metrics(aggregator, 320_000)
        assert ("warming", "disconnected") == (fields["state"], fields["reason"])
        assert 45.0 == fields["windows"]["60s"]["coverage_s"]
        assert "warming" == metrics(aggregator, 614_999)["state"]
        assert "live" == metrics(aggregator, 615_000)["state"]

    def test_an_unannounced_new_session_reduces_coverage_too(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        aggregator.apply(trades_message(8_000, [trade(7_999)], session=2), "BTCUSDT")
        fields = metrics(aggregator, 9_000)
        assert "warming" == fields["state"]
        assert 1.001 == fields["windows"]["10s"]["coverage_s"]
        assert 2 == fields["windows"]["10s"]["trades"]

    def test_a_killed_connector_is_noticed_when_its_successor_connects(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        [note] = aggregator.apply_link("", link("connected", 9_000, [], session=2))
        assert ("opened", T0) == (note.event, note.gap.start_ms)
        assert "stale" == metrics(aggregator, 9_001)["state"]

    def test_sessions_of_two_connectors_may_have_the_same_number(self) -> None:
        aggregator = TradesAggregator()
        aggregator.subscribe("BTCUSDT", connector="connector-linear-0")
        aggregator.subscribe("ETHUSDT", connector="connector-linear-1")
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        aggregator.apply(trades_message(-60_000, [trade(-60_000)], our_ms=0), "ETHUSDT")
        tape = aggregator.tape("ETHUSDT")
        assert tape is not None
        aggregator.advance(our_ns(1_000))
        assert T0 - 59_000 == tape.windows.now_ms

    def test_only_the_markets_of_a_connector_go_stale_with_it(self) -> None:
        aggregator = TradesAggregator()
        aggregator.subscribe("BTCUSDT", connector="connector-linear-0")
        aggregator.subscribe("ETHUSDT", connector="connector-linear-1")
        aggregator.apply_link("connector-linear-1", link("disconnected", 0))
        assert "warming" == metrics(aggregator, 1)["state"]
        assert "stale" == metrics(aggregator, 1, "ETHUSDT")["state"]

    @pytest.mark.parametrize("event", ["rejected", "unsubscribed"])
    def test_a_rejected_or_unsubscribed_topic_is_stale(
        self, aggregator: TradesAggregator, event: LinkEvent
    ) -> None:
        aggregator.subscribe("ETHUSDT")
        aggregator.apply_link("", link("subscribed", 0, ["trade.linear.ETHUSDT"]))
        aggregator.apply_link("", link(event, 0))
        fields = metrics(aggregator, 1)
        assert (fields["state"], fields["reason"]) == ("stale", event)
        assert "warming" == metrics(aggregator, 1, "ETHUSDT")["state"]

    def test_link_events_of_books_and_unknown_symbols_are_ignored(
        self, aggregator: TradesAggregator
    ) -> None:
        topics = ["book.linear.BTCUSDT", "trade.linear.ETHUSDT", "trade.spot.BTCUSDT"]
        aggregator.apply_link("", link("rejected", 0, topics))
        assert "warming" == metrics(aggregator, 1)["state"]

    def test_missed_bus_messages_reduce_coverage_from_the_last_trade_before(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        aggregator.apply(trades_message(5_000, [trade(5_000)]), "BTCUSDT")
        aggregator.apply(trades_message(8_000, [trade(8_000)]), "BTCUSDT", lost=2)
        fields = metrics(aggregator, 10_000)
        assert ("warming", "bus_gap") == (fields["state"], fields["reason"])
        assert 7.0 == fields["windows"]["10s"]["coverage_s"]
        tape = aggregator.tape("BTCUSDT")
        assert tape is not None
        assert 3.0 == tape.untrusted_s()

    def test_a_market_with_too_many_trades_reports_its_smaller_coverage(self) -> None:
        aggregator = TradesAggregator(["10s"], max_trades=5)
        aggregator.subscribe("BTCUSDT")
        trades = [trade(second * 1_000) for second in range(20)]
        for each in trades:
            at_ms = each.match_ts_ms - T0
            aggregator.apply(trades_message(at_ms, [each]), "BTCUSDT")
        fields = metrics(aggregator, 19_000)
        assert ("warming", "overflow") == (fields["state"], fields["reason"])
        assert 5 == fields["windows"]["10s"]["trades"]
        assert 5.0 == fields["windows"]["10s"]["coverage_s"]
        assert 20 == fields["trades_total"]


class TestExchangeTime:
    def test_windows_slide_on_our_clock_while_nobody_trades(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        assert 1 == metrics(aggregator, 9_999)["windows"]["10s"]["trades"]
        assert 0 == metrics(aggregator, 10_000)["windows"]["10s"]["trades"]

    def test_a_message_of_another_symbol_of_the_session_sets_the_time(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.subscribe("ETHUSDT")
        aggregator.apply_link("", link("subscribed", 0))
        aggregator.apply_link("", link("subscribed", 0, ["trade.linear.ETHUSDT"]))
        aggregator.apply(trades_message(2_000, [trade(2_000)]), "ETHUSDT")
        tape = aggregator.tape("BTCUSDT")
        assert tape is not None
        assert T0 + 2_000 == tape.windows.now_ms
        assert 1.0 == metrics(aggregator, 3_000)["windows"]["10s"]["coverage_s"]

    def test_a_first_message_that_was_held_up_does_not_extend_the_coverage(
        self, aggregator: TradesAggregator
    ) -> None:
        """Subscribed at 4 s, the connection is held up, and what was sent at 4.5 s comes at 6.5."""
        aggregator.apply_link("", link("subscribed", 4_000))
        aggregator.apply(trades_message(4_500, [trade(4_500)], our_ms=6_500), "BTCUSDT")
        aggregator.apply(trades_message(7_000, [trade(7_000)], our_ms=7_000), "BTCUSDT")
        assert metrics(aggregator, 7_000)["windows"]["10s"]["coverage_s"] <= 3.0

    @pytest.mark.parametrize("speed", [0.1, 1.0, 50.0])
    def test_a_recording_gives_the_same_numbers_at_any_speed_and_after_its_end(
        self, aggregator: TradesAggregator, speed: float
    ) -> None:
        aggregator.apply_link("", link("subscribed", 0, source="replay"))
        for at_ms in range(0, 30_000, 500):
            our_ms = int(at_ms / speed)
            metrics(aggregator, our_ms - 1)
            message = trades_message(at_ms, [trade(at_ms)], source="replay", our_ms=our_ms)
            aggregator.apply(message, "BTCUSDT")
        for our_ms in (int(29_500 / speed), int(29_500 / speed) + 60_000):
            measures = metrics(aggregator, our_ms)
            window = measures["windows"]["10s"]
            assert T0 + 29_500 == measures["as_of_ms"]
            assert (20, 10.0) == (window["trades"], window["coverage_s"])

    def test_a_replay_at_fifty_times_the_speed_fills_windows_in_exchange_time(
        self, aggregator: TradesAggregator
    ) -> None:
        """One trade per second for 100 s of exchange time, within 2 s of our time."""
        for second in range(101):
            at_ms = second * 1_000
            message = trades_message(at_ms, [trade(at_ms)], our_ms=at_ms // 50)
            aggregator.apply(message, "BTCUSDT")
        fields = metrics(aggregator, 2_000)
        assert 10 == fields["windows"]["10s"]["trades"]
        assert 60.0 == fields["windows"]["60s"]["tpm"]
        assert 60.0 == fields["windows"]["60s"]["coverage_s"]
        assert 100.0 == fields["windows"]["300s"]["coverage_s"]

    def test_a_session_without_messages_only_loses_its_own_time(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply_link("", link("subscribed", 0))
        for second in range(60):
            aggregator.apply(trades_message(second * 1_000, [trade(second * 1_000)]), "BTCUSDT")
        aggregator.apply_link("", link("disconnected", 59_500))
        aggregator.apply_link("", link("subscribed", 60_000, session=2))
        aggregator.apply_link("", link("disconnected", 61_000, session=2))
        aggregator.apply_link("", link("subscribed", 62_000, session=3))
        aggregator.apply(trades_message(63_000, [trade(63_000)], session=3), "BTCUSDT")
        fields = metrics(aggregator, 63_000)
        assert (57.0, 3.0) == (fields["windows"]["60s"]["coverage_s"], fields["untrusted_s"])

    def test_messages_missed_before_the_first_one_are_not_covered(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.subscribe("ETHUSDT")
        topics = ("trade.linear.BTCUSDT", "trade.linear.ETHUSDT")
        aggregator.apply_link("", link("subscribed", 0, topics))
        aggregator.apply(trades_message(1_000, [trade(1_000)]), "ETHUSDT")
        aggregator.apply(trades_message(60_000, [trade(60_000)]), "BTCUSDT", lost=5)
        assert 0.0 == metrics(aggregator, 60_000)["windows"]["60s"]["coverage_s"]
        assert 59.0 == metrics(aggregator, 60_000, "ETHUSDT")["windows"]["60s"]["coverage_s"]

    def test_no_market_is_live_before_the_ten_seconds_of_tps_are_covered(self) -> None:
        aggregator = TradesAggregator(["5s"])
        aggregator.subscribe("BTCUSDT")
        aggregator.apply_link("", link("subscribed", 0))
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        states = [metrics(aggregator, at_ms)["state"] for at_ms in (6_000, 10_000)]
        assert ["warming", "live"] == states

    def test_messages_missed_around_an_earlier_gap_are_not_covered_on_either_side(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply_link("", link("subscribed", 0))
        aggregator.apply(trades_message(70_000, [trade(70_000)]), "BTCUSDT")
        aggregator.apply_link("", link("unsubscribed", 90_000))
        aggregator.apply_link("", link("subscribed", 91_000))
        aggregator.apply(trades_message(92_000, [trade(92_000)]), "BTCUSDT", lost=10)
        assert 38.0 == metrics(aggregator, 92_000)["windows"]["60s"]["coverage_s"]

    def test_a_late_message_does_not_move_time_back(self, aggregator: TradesAggregator) -> None:
        aggregator.apply(trades_message(10_000, [trade(10_000)]), "BTCUSDT")
        aggregator.apply(trades_message(9_000, [trade(500)], our_ms=10_001), "BTCUSDT")
        tape = aggregator.tape("BTCUSDT")
        assert tape is not None
        assert T0 + 10_000 == tape.windows.now_ms
        assert 12.0 == aggregator.get_tpm("BTCUSDT", "10s")
        assert T0 + 10_000 == metrics(aggregator, 10_001)["match_ts_ms"]

    def test_a_step_of_our_clock_is_corrected_by_the_next_message(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        aggregator.apply(trades_message(1_000, [trade(1_000)], our_ms=-3_600_000), "BTCUSDT")
        assert 2 == metrics(aggregator, -3_600_000 + 500)["windows"]["10s"]["trades"]
        tape = aggregator.tape("BTCUSDT")
        assert tape is not None
        assert T0 + 1_500 == tape.windows.now_ms


class TestSources:
    def test_a_changed_source_replaces_the_tape(self, aggregator: TradesAggregator) -> None:
        aggregator.apply(trades_message(0, [trade(0, trade_id="a")]), "BTCUSDT")
        live = trades_message(1_000, [trade(1_000, trade_id="a")], session=2, source="live")
        aggregator.apply(live, "BTCUSDT")
        fields = metrics(aggregator, 1_000)
        assert ("live", "source_change") == (fields["source"], fields["reason"])
        assert 1 == fields["trades_total"]
        assert 1 == fields["windows"]["10s"]["trades"]
        tape = aggregator.tape("BTCUSDT")
        assert tape is not None
        assert 1 == tape.generation
        assert 0 == aggregator.counts.duplicates

    def test_a_link_event_changes_the_source_before_any_trade(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply(trades_message(0, [trade(0)]), "BTCUSDT")
        aggregator.apply_link("", link("connected", 1_000, [], session=2, source="live"))
        fields = metrics(aggregator, 1_000)
        assert ("live", 0) == (fields["source"], fields["trades_total"])
        assert fields["windows"]["10s"]["trades"] is None

    def test_a_symbol_added_later_has_the_source_of_its_connector(
        self, aggregator: TradesAggregator
    ) -> None:
        aggregator.apply_link("", link("connected", 0, [], source="replay"))
        aggregator.subscribe("ETHUSDT")
        assert "replay" == metrics(aggregator, 1, "ETHUSDT")["source"]


def test_a_trade_with_an_implausible_size_is_ignored_and_counted(
    aggregator: TradesAggregator,
) -> None:
    aggregator.apply(trades_message(1, [trade(0, size=1e-30), trade(1)]), "BTCUSDT")
    assert 1 == metrics(aggregator, 1)["trades_total"]
    assert 1 == aggregator.counts.invalid


def test_volatility_and_quantiles_are_published_only_if_configured() -> None:
    plain = TradesAggregator(["10s"])
    rich = TradesAggregator(["10s"], quantiles=[0.5, 1.0], volatility=True)
    for aggregator in (plain, rich):
        aggregator.subscribe("BTCUSDT")
        for second, size in enumerate([1.0, 5.0, 2.0]):
            aggregator.add_trade("BTCUSDT", trade(second * 1_000, size=size, price=100.0 + second))
    assert "size_quantiles" not in metrics(plain, 0)["windows"]["10s"]
    assert "realised_volatility" not in metrics(plain, 0)["windows"]["10s"]
    window = metrics(rich, 0)["windows"]["10s"]
    assert {"0.5": 2.0, "1.0": 5.0} == window["size_quantiles"]
    assert pytest.approx(0.0140027, rel=1e-5) == window["realised_volatility"]
    rich.subscribe("ETHUSDT")
    window = metrics(rich, 0, "ETHUSDT")["windows"]["10s"]
    assert {"0.5": None, "1.0": None} == window["size_quantiles"]
    assert window["realised_volatility"] is None


# -- recorded captures -----------------------------------------------------------------------------

CAPTURES: list[tuple[str, Category]] = [
    ("linear_20260809_ob200_BTC_SOL", "linear"),
    ("spot_20260809_ob200_ETH", "spot"),
]


@pytest.mark.parametrize(("name", "category"), CAPTURES)
@pytest.mark.parametrize("speed", [1.0, 50.0])
def test_windows_over_a_recorded_capture_equal_brute_force_at_every_message(
    captures: Path, name: str, category: Category, speed: float
) -> None:
    lines = (captures / f"{name}.jsonl").read_text().splitlines()
    received = (captures / f"{name}.recv.txt").read_text().split()
    aggregator = TradesAggregator(["1s", "10s", "60s"])
    seen: dict[str, list[dict[str, str]]] = {}
    begin = float(received[0])
    for line, recv in zip(lines, received, strict=True):
        frame = json.loads(line)
        if not frame.get("topic", "").startswith("publicTrade."):
            continue
        symbol = frame["data"][0]["s"]
        aggregator.subscribe(symbol, category)
        rows = seen.setdefault(symbol, [])
        rows += frame["data"]
        recv_ns = int((begin + (float(recv) - begin) / speed) * 1e9)
        trades = tuple(
            Trade(r["T"], r["S"], float(r["p"]), float(r["v"]), r["i"], r["seq"], False, False)
            for r in frame["data"]
        )
        message = TradesMessage(1, "replay", 1, 1, recv_ns, frame["ts"], trades)
        aggregator.apply(message, symbol, category=category)
        tape = aggregator.tape(symbol, category)
        assert tape is not None
        fields = metrics_of(aggregator, tape, recv_ns)
        now = tape.windows.now_ms
        assert now is not None
        for window in ("1s", "10s", "60s"):
            expected = capture_window(rows, now - int(window[:-1]) * 1_000, now)
            assert expected == {key: fields["windows"][window][key] for key in expected}
    assert {"linear": 221, "spot": 9}[category] == sum(map(len, seen.values()))
    assert 0 == aggregator.counts.duplicates


def capture_window(rows: list[dict[str, Any]], start: int, now: int) -> dict[str, Any]:
    held = [row for row in rows if start < row["T"] <= now]
    sides = {
        side: sum((Fraction(row["v"]) for row in held if row["S"] == side), Fraction(0))
        for side in ("Buy", "Sell")
    }
    turnover = sum((Fraction(row["v"]) * Fraction(row["p"]) for row in held), Fraction(0))
    volume = sides["Buy"] + sides["Sell"]
    return {
        "trades": len(held),
        "volume": float(volume),
        "buy_volume": float(sides["Buy"]),
        "sell_volume": float(sides["Sell"]),
        "vol_delta": float(sides["Buy"] - sides["Sell"]),
        "turnover": float(turnover),
        "vwap": float(turnover / volume),
        "high": max(float(row["p"]) for row in held),
        "low": min(float(row["p"]) for row in held),
    }
