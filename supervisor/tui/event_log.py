"""
What has happened lately: reconnects, restarts, gaps, walls. Pure.

Turns messages, and differences between one status and the next, into lines. Walls come and go many
times a second, so news of one wall replaces its older news, and walls take at most half of the
lines while there is anything else to say.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.text import Text

from bybit_pipeline.supervisor.tui.formatting import amount, clock_time, fitted

EVENTS_MAX = 200
WALL_EVENTS = {"detected": "yellow", "eaten": "magenta", "pulled": "cyan"}

Payload = Mapping[str, Any]


class Event(NamedTuple):
    """One thing that happened; ``at`` is in seconds since 1970."""

    at: float
    tag: str
    subject: str
    text: str
    style: str


class Feed:
    """The events, and what is needed to notice the next."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._walls: OrderedDict[tuple[Any, ...], Event] = OrderedDict()
        self._processes: dict[str, tuple[str, int]] = {}
        self._links: dict[str, tuple[bool, int]] = {}
        self._source: str | None = None

    def take_message(self, payload: Payload) -> None:
        """Note a ``gap.*`` or ``density.*`` message; others say nothing here."""
        at = (payload.get("publish_ts_ns") or 0) / 1e9
        subject = f"{payload.get('category')}:{payload.get('symbol')}"
        if payload.get("kind") == "gap":
            self._take_gap(payload, at, subject)
        elif payload.get("kind") == "density" and payload.get("event") in WALL_EVENTS:
            event = str(payload["event"])
            key = (subject, payload.get("side"), payload.get("price"))
            size = payload["peak_size"] if event != "detected" else payload["size"]
            text = f"{payload['side']} wall {event} {amount(size)} @ {payload['price']:.10g}"
            if event == "detected":
                text += f"  {payload['strength']:.1f}x the median"
            self._walls[key] = Event(at, "wall", subject, text, WALL_EVENTS[event])
            self._walls.move_to_end(key)
            if len(self._walls) > EVENTS_MAX:
                self._walls.popitem(last=False)

    def _take_gap(self, payload: Payload, at: float, subject: str) -> None:
        reason = payload.get("reason")
        if reason == "starting":
            return
        stream = payload.get("stream")
        if payload.get("event") == "opened":
            self._add(at, "gap", subject, f"{stream} not trusted: {reason}", "bold red")
        else:
            seconds = payload.get("duration_s")
            after = "" if seconds is None else f" after {seconds:.1f} s"
            self._add(at, "gap", subject, f"{stream} whole again{after} ({reason})", "green")

    def take_status(self, status: Payload, at: float) -> None:
        """Note what differs from the status before."""
        for event in (
            *self._source_news(status, at),
            *self._process_news(status, at),
            *self._link_news(status, at),
        ):
            self._events.append(event)

    def _source_news(self, status: Payload, at: float) -> Iterator[Event]:
        source = status["source"]
        if self._source is not None and source != self._source:
            style = "green" if source == "live" else "bold white on red"
            yield Event(at, "source", "pipeline", f"{self._source} -> {source}", style)
        self._source = source

    def _process_news(self, status: Payload, at: float) -> Iterator[Event]:
        now = {p["process"]: (p["state"], p["restarts"]) for p in status["processes"]}
        for process, (state, restarts) in now.items():
            was_state, was_restarts = self._processes.get(process, (state, restarts))
            if restarts > was_restarts:
                yield Event(at, "restart", process, f"died, restart {restarts}", "bold red")
            if state != was_state:
                style = {"up": "green", "starting": "yellow"}.get(state, "bold red")
                yield Event(at, "process", process, f"{was_state} -> {state}", style)
        self._processes = now

    def _link_news(self, status: Payload, at: float) -> Iterator[Event]:
        now = {c["process"]: (c["connected"], c["reconnects"]) for c in status["connectors"]}
        for connector, (connected, reconnects) in now.items():
            was_connected, was_reconnects = self._links.get(connector, (connected, reconnects))
            if reconnects > was_reconnects:
                yield Event(at, "link", connector, f"reconnect {reconnects}", "yellow")
            if connected != was_connected:
                text = "connected" if connected else "disconnected"
                yield Event(at, "link", connector, text, "green" if connected else "bold red")
        self._links = now

    def _add(self, at: float, tag: str, subject: str, text: str, style: str) -> None:
        self._events.append(Event(at, tag, subject, text, style))

    def __len__(self) -> int:
        return len(self._events) + len(self._walls)

    def latest(self, count: int) -> list[Event]:
        """The newest events, newest first."""
        events = sorted(self._events, key=lambda event: event.at, reverse=True)[:count]
        walls = sorted(self._walls.values(), key=lambda event: event.at, reverse=True)
        room = max(count - len(events), count // 2)
        kept = events[: count - len(walls[:room])]
        return sorted([*kept, *walls[:room]], key=lambda event: event.at, reverse=True)

    def lines(self, *, width: int, height: int) -> list[Text]:
        """A head and the newest events in at most ``height`` lines."""
        if height < 2:
            return []
        events = self.latest(height - 1)
        head = Text("events", style="bold dim")
        if not events:
            return [head, Text("none yet", style="dim")]
        subject = max(len(event.subject) for event in events)
        return [head, *(fitted(_line(event, subject), width) for event in events)]


def _line(event: Event, subject: int) -> Text:
    return Text.assemble(
        (clock_time(event.at), "dim"),
        f"  {event.tag:<7}  {event.subject:<{subject}}  ",
        (event.text, event.style),
    )
