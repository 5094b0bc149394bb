"""Which messages and changes of status are events."""

from bybit_pipeline.supervisor.tui.event_log import EventLog
from tests.supervisor.tui.payloads import (
    gap,
    process,
    status,
    wall,
)


def event_texts(log: EventLog) -> list[str]:
    return [f"{event.subject} {event.text}" for event in log.latest(100)]


def test_restarts_reconnects_and_a_change_of_source_are_events() -> None:
    log = EventLog()
    log.take_status(status(source="sim"), 1.0)
    assert [] == event_texts(log)

    after = status(processes=[process("trades-0", state="restarting", restarts=1)])
    [connector] = after["connectors"]
    after["connectors"] = [{**connector, "connected": False, "reconnects": 2}]
    log.take_status(after, 2.0)

    assert {
        "pipeline sim -> live",
        "trades-0 exited, restart 1",
        "trades-0 up -> restarting",
        "connector-linear-0 reconnect 2",
        "connector-linear-0 disconnected",
    } == set(event_texts(log))


def test_a_gap_is_an_event_when_it_opens_and_closes_except_at_the_start() -> None:
    log = EventLog()
    log.take_message(gap(reason="starting"))
    log.take_message(gap())
    log.take_message(gap(event="closed", duration_s=1.42, publish_ts_ns=2 * 10**9))

    assert [
        "linear:A book gap closed after 1.4 s (gap)",
        "linear:A book gap: gap",
    ] == event_texts(log)


def test_a_newer_event_of_a_wall_replaces_its_older_one() -> None:
    log = EventLog()
    log.take_message(wall(1))
    log.take_message(wall(2, event="eaten"))

    assert ["linear:A bid wall eaten 50.000 @ 83766"] == event_texts(log)


def test_walls_leave_room_for_other_events() -> None:
    log = EventLog()
    log.take_message(gap())
    log.take_message(gap(symbol="B"))
    for count in range(50):
        log.take_message(wall(10 + count, price=100.0 + count))

    latest = log.latest(6)
    assert 6 == len(latest)
    assert 2 == sum(event.tag == "gap" for event in latest)
