"""
The log of recent events: reconnects, restarts, gaps, walls. Pure.

Turns messages, and differences between successive statuses, into lines. Walls change many times a
second. So a newer event of a wall replaces its older one, and walls take at most half of the lines
while other events need them.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.text import Text

from bybit_pipeline.supervisor.tui.formatting import amount, clock_time, fitted

EVENTS_MAX = 200
WALL_EVENT_STYLES = {"detected": "yellow", "eaten": "magenta", "pulled": "cyan"}

Payload = Mapping[str, Any]


class Event(NamedTuple):
    """One event; ``at`` is in seconds since 1970."""

    at: float
    tag: str
    subject: str
    text: str
    style: str


class EventLog:
    """The recent events, and the previous status, from which new events are derived."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._walls: OrderedDict[tuple[Any, ...], Event] = OrderedDict()
        self._processes: dict[str, tuple[str, int]] = {}
        self._links: dict[str, tuple[bool, int]] = {}
        self._source: str | None = None

    def take_message(self, payload: Payload) -> None:
        """Add the event of a ``gap.*`` or ``density.*`` message; other kinds are ignored."""
        at = (payload.get("publish_ts_ns") or 0) / 1e9
        subject = f"{payload.get('category')}:{payload.get('symbol')}"
        if payload.get("kind") == "gap":
            self._take_gap(payload, at, subject)
        elif payload.get("kind") == "density" and payload.get("event") in WALL_EVENT_STYLES:
            self._take_wall(payload, at, subject)

    def _take_gap(self, payload: Payload, at: float, subject: str) -> None:
        stream, reason = payload.get("stream"), payload.get("reason")
        if reason == "starting":
            return
        if payload.get("event") == "opened":
            event = Event(at, "gap", subject, f"{stream} gap: {reason}", "bold red")
        else:
            seconds = payload.get("duration_s")
            after = "" if seconds is None else f" after {seconds:.1f} s"
            event = Event(at, "gap", subject, f"{stream} gap closed{after} ({reason})", "green")
        self._events.append(event)

    def _take_wall(self, payload: Payload, at: float, subject: str) -> None:
        event = str(payload["event"])
        size = payload["size"] if event == "detected" else payload["peak_size"]
        text = f"{payload['side']} wall {event} {amount(size)} @ {payload['price']:.10g}"
        if event == "detected":
            text += f"  {payload['strength']:.1f}x median"
        key = (subject, payload.get("side"), payload.get("price"))
        self._walls[key] = Event(at, "wall", subject, text, WALL_EVENT_STYLES[event])
        self._walls.move_to_end(key)
        if len(self._walls) > EVENTS_MAX:
            self._walls.popitem(last=False)

    def take_status(self, status: Payload, at: float) -> None:
        """Add an event for each difference from the previous status."""
        self._events.extend(self._source_events(status, at))
        self._events.extend(self._process_events(status, at))
        self._events.extend(self._link_events(status, at))

    def _source_events(self, status: Payload, at: float) -> Iterator[Event]:
        source = status["source"]
        if self._source is not None and source != self._source:
            style = "green" if source == "live" else "bold white on red"
            yield Event(at, "source", "pipeline", f"{self._source} -> {source}", style)
        self._source = source

    def _process_events(self, status: Payload, at: float) -> Iterator[Event]:
        current = {p["process"]: (p["state"], p["restarts"]) for p in status["processes"]}
        for process, (state, restarts) in current.items():
            old_state, old_restarts = self._processes.get(process, (state, restarts))
            if restarts > old_restarts:
                yield Event(at, "restart", process, f"exited, restart {restarts}", "bold red")
            if state != old_state:
                style = {"up": "green", "starting": "yellow"}.get(state, "bold red")
                yield Event(at, "process", process, f"{old_state} -> {state}", style)
        self._processes = current

    def _link_events(self, status: Payload, at: float) -> Iterator[Event]:
        current = {c["process"]: (c["connected"], c["reconnects"]) for c in status["connectors"]}
        for connector, (connected, reconnects) in current.items():
            default = (connected, reconnects)
            was_connected, old_reconnects = self._links.get(connector, default)
            if reconnects > old_reconnects:
                yield Event(at, "link", connector, f"reconnect {reconnects}", "yellow")
            if connected != was_connected:
                text = "connected" if connected else "disconnected"
                yield Event(at, "link", connector, text, "green" if connected else "bold red")
        self._links = current

    def __len__(self) -> int:
        return len(self._events) + len(self._walls)

    def latest(self, count: int) -> list[Event]:
        """At most ``count`` events, newest first."""
        events = sorted(self._events, key=lambda event: event.at, reverse=True)[:count]
        walls = sorted(self._walls.values(), key=lambda event: event.at, reverse=True)
        room = max(count - len(events), count // 2)
        kept = events[: count - len(walls[:room])]
        return sorted([*kept, *walls[:room]], key=lambda event: event.at, reverse=True)

    def lines(self, *, width: int, height: int) -> list[Text]:
        """A title and the newest events, in at most ``height`` lines."""
        if height < 2:
            return []
        events = self.latest(height - 1)
        title = Text("events", style="bold dim")
        if not events:
            return [title, Text("none yet", style="dim")]
        subject_width = max(len(event.subject) for event in events)
        return [title, *(fitted(_line(event, subject_width), width) for event in events)]


def _line(event: Event, subject_width: int) -> Text:
    return Text.assemble(
        (clock_time(event.at), "dim"),
        f"  {event.tag:<7}  {event.subject:<{subject_width}}  ",
        (event.text, event.style),
    )
