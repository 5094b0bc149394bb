"""
Faults of the simulated exchange: misbehaviour on request.

Decides which data frames are dropped, repeated, reordered, damaged or renumbered, and when
connections stall, break or are refused. Knows nothing of sockets. A fault is written as
``NAME[:key=value,key=value...]``, for example ``drop:every=50`` or
``corrupt:every=200,how=cross,topic=orderbook.50.BTCUSDT``.

A fault on data frames happens before a frame is handed to the subscribers of its topic, so all of
them see the same. Frames are counted per topic, so that the faults of one topic do not depend on
other topics. Random choices depend on the seed.

Parameters of every fault:

    every=N     inject at every Nth frame (connection, request); the default is in the table
    after=N     skip the first N (default 0)
    times=N     inject at most N times in total (default 0: no limit)
    topic=TEXT  only topics that contain TEXT
    stream=book|trade|other   only topics of this kind

``silent_topic`` only has the last two; ``stall``, ``disconnect``, ``refuse`` and ``rest`` only have
the first three, because they concern every topic. The faults, with the default of ``every``:

    drop          100   drops a frame
    duplicate     100   sends a frame twice
    reorder       100   sends a frame after the next one of its topic; the next one is not counted
    corrupt       100   damages a frame; how= text (not JSON), price, size (not a number),
                        negative (a size), cross (a bid above the asks), truncate (half of the
                        levels of a book message are lost); random by default
    gap           100   adds by=1 to the update ids of a book from here on; no change is lost
    reset         100   sends a book delta with u=1
    late_snapshot 1     sends a snapshot after by=3 deltas of its topic
    silent_topic  1     acks the topic and never delivers anything
    late_ack      1     delays acks by seconds=2, but not the data
    stall         1000  sends nothing to anyone for seconds=5 and drops what is due meanwhile; pings
                        are not answered either, unless pongs=1
    disconnect    1000  breaks all connections, without a close frame unless code= gives one
    refuse        1     refuses the handshake with HTTP status=503, and Retry-After: retry_after=
                        seconds unless that is 0
    unavailable   1     refuses a request to subscribe with an error that may pass
    rest          1     answers a REST request with HTTP status=403, or with how= text (not JSON),
                        code (retCode 10006), empty (an empty list), loop (cursors in a circle),
                        part (a third of the list)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec

from bybit_pipeline.processes.simulator.feed import TopicKey, stream_of

DEFAULT_EVERY: Final[Mapping[str, int]] = {
    "drop": 100,
    "duplicate": 100,
    "reorder": 100,
    "corrupt": 100,
    "gap": 100,
    "reset": 100,
    "late_snapshot": 1,
    "silent_topic": 1,
    "late_ack": 1,
    "stall": 1000,
    "disconnect": 1000,
    "refuse": 1,
    "unavailable": 1,
    "rest": 1,
}
COMMON_KEYS: Final = frozenset({"every", "after", "times", "topic", "stream"})
OWN_KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "corrupt": {"how": ""},
    "gap": {"by": "1"},
    "late_snapshot": {"by": "3"},
    "late_ack": {"seconds": "2"},
    "stall": {"seconds": "5", "pongs": "0"},
    "disconnect": {"code": "0"},
    "refuse": {"status": "503", "retry_after": "0"},
    "rest": {"how": "", "status": "403"},
}
NOT_WHOLE: Final = {"seconds": "a number", "pongs": "0 or 1"}
CORRUPTIONS: Final = ("text", "price", "size", "negative", "cross", "truncate")
REST_HOWS: Final = ("text", "code", "empty", "loop", "part")
STREAMS: Final = ("", "book", "trade", "other")
DELAY_MAX: Final = 1000
"""Largest number of deltas that can delay a snapshot."""


@dataclass(frozen=True)
class Fault:
    """One fault with its parameters; the module's docstring explains them."""

    name: str
    every: int
    after: int = 0
    times: int = 0
    topic: str = ""
    stream: str = ""
    how: str = ""
    by: int = 1
    seconds: float = 0.0
    pongs: bool = False
    code: int = 0
    status: int = 503
    retry_after: int = 0

    def applies_to(self, key: TopicKey) -> bool:
        """Return True if the fault can happen on this topic."""
        if self.topic and self.topic not in key[1]:
            return False
        return not self.stream or stream_of(key[1]) == self.stream


def make_fault(name: str, **values: Any) -> Fault:
    """
    Return a fault with defaults for the parameters that are not given.

    Raises:
        ValueError: For an unknown fault or parameter, or a value that is not allowed.
    """
    if name not in DEFAULT_EVERY:
        raise ValueError(f"unknown fault {name!r}; allowed: {', '.join(DEFAULT_EVERY)}")
    own = OWN_KEYS.get(name, {})
    unknown = set(values) - COMMON_KEYS - set(own)
    if unknown:
        allowed = ", ".join(sorted(COMMON_KEYS | set(own)))
        raise ValueError(
            f"fault {name}: unknown parameter {sorted(unknown)[0]!r}; allowed: {allowed}"
        )
    merged = {"every": DEFAULT_EVERY[name], **own, **values}
    try:
        fault = msgspec.convert({"name": name, **merged}, Fault, strict=False)
    except msgspec.ValidationError as error:
        parameter = str(error).rpartition("`$.")[2].rstrip("`")
        allowed = NOT_WHOLE.get(parameter, "a whole number")
        value = merged.get(parameter)
        raise ValueError(f"fault {name}: {parameter}={value}; allowed: {allowed}") from error
    if fault.every < 1 or min(fault.after, fault.times, fault.seconds, fault.retry_after) < 0:
        raise ValueError(f"fault {name}: every must be at least 1, other numbers at least 0")
    hows = REST_HOWS if name == "rest" else CORRUPTIONS
    if fault.how not in ("", *hows):
        raise ValueError(f"fault {name}: how={fault.how}; allowed: {', '.join(hows)}")
    if fault.stream not in STREAMS:
        raise ValueError(f"fault {name}: stream={fault.stream}; allowed: book, trade, other")
    return fault


def parse_fault(text: str) -> Fault:
    """
    Parse ``NAME[:key=value,...]``.

    Raises:
        ValueError: If the text has another form, or for the reasons of ``make_fault``.
    """
    name, _, rest = text.partition(":")
    values = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"fault {name}: {part!r} is not of the form key=value")
        values[key] = value
    return make_fault(name, **values)


@dataclass
class _TopicState:
    """The state of the faults on one topic."""

    held: bytes | None = None
    """A frame to send after the next one (reorder)."""
    snapshot: bytes | None = None
    """A delayed snapshot (late_snapshot)."""
    deltas_left: int = 0
    """Deltas to send before the delayed snapshot."""
    shift: int = 0
    """Added to the update id of every book message (gap)."""


@dataclass
class Faults:
    """
    The active faults, their counts and their effect on frames.

    ``set`` and ``clear`` may be called from any thread: they replace the whole table in one step.
    """

    active: Mapping[str, Fault] = field(default_factory=dict)
    seed: int = 1
    injected: dict[str, int] = field(default_factory=dict)
    """Number of injections by fault name."""

    def __post_init__(self) -> None:
        self._random = Random(f"{self.seed}:faults")
        self._counts: dict[tuple[str, str], int] = {}
        self._topics: dict[TopicKey, _TopicState] = {}

    def set(self, name: str, **values: Any) -> None:
        """Activate a fault or change its parameters; its counts restart at zero."""
        fault = make_fault(name, **values)
        self._counts = {key: n for key, n in self._counts.items() if key[0] != name}
        self.active = {**self.active, name: fault}

    def clear(self, name: str | None = None) -> None:
        """Deactivate one fault, or all of them."""
        self.active = (
            {} if name is None else {key: f for key, f in self.active.items() if key != name}
        )

    def trigger(self, name: str, key: TopicKey | None = None) -> Fault | None:
        """Count one opportunity; return the fault if it happens now, else None."""
        fault = self.active.get(name)
        if fault is None or (key is not None and not fault.applies_to(key)):
            return None
        counter = (name, key[1] if key else "")
        count = self._counts[counter] = self._counts.get(counter, 0) + 1
        done = self.injected.get(name, 0)
        counted = count - fault.after
        if counted < 1 or counted % fault.every or (fault.times and done >= fault.times):
            return None
        self.injected[name] = done + 1
        return fault

    def discard_topic(self, key: TopicKey) -> None:
        """Discard the state of a topic that has lost its last subscriber."""
        self._topics.pop(key, None)

    def apply(self, key: TopicKey, payload: bytes) -> list[bytes]:
        """Return the frames to send instead of this one: none, one or several."""
        if not self.active and key not in self._topics:
            return [payload]
        if self._is_silent(key) or self.trigger("drop", key):
            return []
        state = self._topics.setdefault(key, _TopicState())
        if stream_of(key[1]) == "book":
            payload = self._renumbered(key, payload, state)
        fault = self.trigger("corrupt", key)
        if fault:
            payload = corrupted(payload, fault.how, self._random)
        return self._delayed(key, payload, state)

    def _is_silent(self, key: TopicKey) -> bool:
        fault = self.active.get("silent_topic")
        if fault is None or not fault.applies_to(key):
            return False
        self.injected["silent_topic"] = self.injected.get("silent_topic", 0) + 1
        return True

    def _renumbered(self, key: TopicKey, payload: bytes, state: _TopicState) -> bytes:
        if is_snapshot(payload):
            return _with_update_id(payload, state.shift, 0) if state.shift else payload
        gap = self.trigger("gap", key)
        if gap:
            state.shift += gap.by
        if self.trigger("reset", key):
            return _with_update_id(payload, 0, 1)
        return _with_update_id(payload, state.shift, 0) if state.shift else payload

    def _delayed(self, key: TopicKey, payload: bytes, state: _TopicState) -> list[bytes]:
        out = [payload]
        if stream_of(key[1]) == "book" and is_snapshot(payload):
            fault = self.trigger("late_snapshot", key)
            if fault:
                state.snapshot, state.deltas_left = payload, min(fault.by, DELAY_MAX)
                return []
        if self.trigger("duplicate", key):
            out = [payload, payload]
        if state.held is not None:
            out, state.held = [*out, state.held], None
        elif self.trigger("reorder", key):
            state.held = payload
            return []
        if state.snapshot is not None:
            state.deltas_left -= 1
            if state.deltas_left <= 0:
                out, state.snapshot = [*out, state.snapshot], None
        return out


def is_snapshot(payload: bytes) -> bool:
    """Return True if a data frame is a snapshot."""
    return b'"type":"snapshot"' in payload


def corrupted(payload: bytes, how: str, random: Random) -> bytes:
    """
    Return a damaged copy of a data frame.

    A frame that cannot be damaged in the requested way is cut in half.

    Args:
        payload: JSON text of a book or trade message.
        how: One of ``CORRUPTIONS``; random if empty.
        random: Source of random choices.
    """
    message = msgspec.json.decode(payload)
    data = message.get("data")
    choice = how or random.choice(CORRUPTIONS)
    if isinstance(data, dict) and "b" in data:
        damaged = _corrupted_book(data, choice, random)
    else:
        damaged = isinstance(data, list) and _corrupted_trade(data, choice, random)
    return msgspec.json.encode(message) if damaged else payload[: len(payload) // 2]


def _corrupted_book(data: dict[str, Any], how: str, random: Random) -> bool:
    levels = [level for level in (*data["b"], *data["a"]) if float(level[1])]
    if how == "text" or not levels:
        return False
    level = random.choice(levels)
    if how == "cross":
        prices = [float(each[0]) for each in levels]
        data["b"] = [[f"{2 * max(prices):.8f}", level[1]], *data["b"]]
    elif how == "truncate":
        data["b"], data["a"] = data["b"][: len(data["b"]) // 2], data["a"][: len(data["a"]) // 2]
    else:
        _damage(level, 0 if how == "price" else 1, how)
    return True


def _corrupted_trade(rows: list[dict[str, Any]], how: str, random: Random) -> bool:
    row = random.choice(rows)
    if how in ("text", "truncate", "cross") or "p" not in row:
        return False
    _damage(row, "p" if how == "price" else "v", how)
    return True


def _damage(holder: Any, place: int | str, how: str) -> None:
    holder[place] = f"-{holder[place]}" if how == "negative" else f"{holder[place]}x"


def _with_update_id(payload: bytes, shift: int, replacement: int) -> bytes:
    """Return the frame with ``u`` shifted, or replaced if ``replacement`` is not zero."""
    message = msgspec.json.decode(payload)
    data = message["data"]
    data["u"] = replacement or data["u"] + shift
    return msgspec.json.encode(message)


def describe(faults: Mapping[str, Fault]) -> str:
    """Return the active faults in one line, for the log."""
    return ", ".join(f"{fault.name}:every={fault.every}" for fault in faults.values())
