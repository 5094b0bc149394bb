"""
Faults on request: how the simulated exchange misbehaves.

Decides which data frames are dropped, repeated, reordered, damaged or renumbered, and when
connections stall, break or are refused; knows nothing of sockets. A fault is written
``NAME[:key=value,key=value...]``, for instance ``drop:every=50`` or
``corrupt:every=200,how=cross,topic=orderbook.50.BTCUSDT``.

Faults on data frames happen before a frame is handed to the subscribers of its topic: all of them
see the same. They are counted per topic, so that what one topic suffers does not depend on the
others; the choices left to chance come from the seed.

Every fault takes

    every=N     every Nth frame (connection, request) that it concerns; the default is below
    after=N     leave the first N alone (default 0)
    times=N     at most N times in all (default 0: without limit)
    topic=TEXT  only topics that contain TEXT
    stream=book|trade|other   only topics of this kind

(``silent_topic`` knows only the last two; ``stall``, ``disconnect``, ``refuse`` and ``rest`` only
the first three, since they concern every topic) and does

    drop          100   a frame is lost
    duplicate     100   a frame comes twice
    reorder       100   a frame comes after the next one of its topic, which is not counted
    corrupt       100   a frame is damaged; how= text (not JSON), price, size (do not parse),
                        negative (a size), cross (a bid above the asks), truncate (a book message
                        loses half of its levels); by default one of these at random
    gap           100   the update id of a book jumps by by=1 and stays shifted, no change is lost
    reset         100   a book delta comes with u=1
    late_snapshot 1     a snapshot waits until by=3 deltas of its topic have gone out before it
    silent_topic  1     the topic is acked and nothing is ever delivered
    late_ack      1     acks come seconds=2 late; data does not wait for them
    stall         1000  nothing is sent to anybody for seconds=5: what is due meanwhile is lost,
                        pings stay without an answer unless pongs=1
    disconnect    1000  all connections break, without a close frame unless code= gives one
    refuse        1     the handshake is refused with HTTP status=503
    rest          1     a REST request is answered with HTTP status=403, or with how= text (not
                        JSON), code (retCode 10006), empty (nothing listed), loop (cursors
                        that go in a circle), part (a third of the list)
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
    "refuse": {"status": "503"},
    "rest": {"how": "", "status": "403"},
}
CORRUPTIONS: Final = ("text", "price", "size", "negative", "cross", "truncate")
REST_HOWS: Final = ("text", "code", "empty", "loop", "part")
STREAMS: Final = ("", "book", "trade", "other")
HELD_MAX: Final = 1000
"""Deltas after which a held snapshot goes out whatever ``by`` says."""


@dataclass(frozen=True)
class Fault:
    """One fault with its parameters; see the module's docstring."""

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

    def concerns(self, key: TopicKey) -> bool:
        """Whether the fault applies to a topic at all."""
        if self.topic and self.topic not in key[1]:
            return False
        return not self.stream or stream_of(key[1]) == self.stream


def make_fault(name: str, **values: Any) -> Fault:
    """
    A fault with its defaults filled in.

    Raises:
        ValueError: If there is no such fault or parameter, or a value is not allowed.
    """
    if name not in DEFAULT_EVERY:
        raise ValueError(f"no fault {name!r}; allowed: {', '.join(DEFAULT_EVERY)}")
    own = OWN_KEYS.get(name, {})
    unknown = set(values) - COMMON_KEYS - set(own)
    if unknown:
        allowed = ", ".join(sorted(COMMON_KEYS | set(own)))
        raise ValueError(f"fault {name}: no parameter {sorted(unknown)[0]!r}; allowed: {allowed}")
    merged = {"every": DEFAULT_EVERY[name], **own, **values}
    try:
        fault = msgspec.convert({"name": name, **merged}, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"fault {name}: {error}") from error
    if fault.every < 1 or min(fault.after, fault.times, fault.seconds) < 0:
        raise ValueError(f"fault {name}: every counts from 1, other numbers from 0")
    hows = REST_HOWS if name == "rest" else CORRUPTIONS
    if fault.how not in ("", *hows):
        raise ValueError(f"fault {name}: how={fault.how}; allowed: {', '.join(hows)}")
    if fault.stream not in STREAMS:
        raise ValueError(f"fault {name}: stream={fault.stream}; allowed: book, trade, other")
    return fault


def parse_fault(text: str) -> Fault:
    """
    A fault from ``NAME[:key=value,...]``.

    Raises:
        ValueError: If the text has another form, or as ``make_fault``.
    """
    name, _, rest = text.partition(":")
    values = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"fault {name}: {part!r} is not key=value")
        values[key] = value
    return make_fault(name, **values)


@dataclass
class _TopicState:
    """What faults remember of one topic."""

    held: bytes | None = None
    """A frame that waits for the next one (reorder)."""
    snapshot: bytes | None = None
    """A snapshot that waits for deltas (late_snapshot), and how many more."""
    waiting: int = 0
    shift: int = 0
    """Added to the update id of every book message (gap)."""


@dataclass
class Faults:
    """
    The faults in force, what they have counted, and what they have done.

    ``set`` and ``clear`` may be called from another thread than the server's: they replace the
    whole table in one step.
    """

    active: Mapping[str, Fault] = field(default_factory=dict)
    seed: int = 1
    injected: dict[str, int] = field(default_factory=dict)
    """How often each fault happened."""

    def __post_init__(self) -> None:
        self._random = Random(f"{self.seed}:faults")
        self._counts: dict[tuple[str, str], int] = {}
        self._topics: dict[TopicKey, _TopicState] = {}

    def set(self, name: str, **values: Any) -> None:
        """Put a fault in force, or change its parameters; its counting starts again."""
        fault = make_fault(name, **values)
        self._counts = {key: n for key, n in self._counts.items() if key[0] != name}
        self.active = {**self.active, name: fault}

    def clear(self, name: str | None = None) -> None:
        """End one fault, or all of them."""
        self.active = (
            {} if name is None else {key: f for key, f in self.active.items() if key != name}
        )

    def strikes(self, name: str, key: TopicKey | None = None) -> Fault | None:
        """Count one occasion; the fault when it happens now, else None."""
        fault = self.active.get(name)
        if fault is None or (key is not None and not fault.concerns(key)):
            return None
        counter = (name, key[1] if key else "")
        count = self._counts[counter] = self._counts.get(counter, 0) + 1
        done = self.injected.get(name, 0)
        past = count - fault.after
        if past < 1 or past % fault.every or (fault.times and done >= fault.times):
            return None
        self.injected[name] = done + 1
        return fault

    def forget(self, key: TopicKey) -> None:
        """A topic lost its last subscriber: frames held back for it are gone."""
        self._topics.pop(key, None)

    def frames(self, key: TopicKey, payload: bytes) -> list[bytes]:
        """The frames that go out in the place of one; none, one or several."""
        if not self.active and key not in self._topics:
            return [payload]
        if self._is_silent(key) or self.strikes("drop", key):
            return []
        state = self._topics.setdefault(key, _TopicState())
        if stream_of(key[1]) == "book":
            payload = self._renumbered(key, payload, state)
        fault = self.strikes("corrupt", key)
        if fault:
            payload = corrupted(payload, fault.how, self._random)
        return self._delayed(key, payload, state)

    def _is_silent(self, key: TopicKey) -> bool:
        fault = self.active.get("silent_topic")
        if fault is None or not fault.concerns(key):
            return False
        self.injected["silent_topic"] = self.injected.get("silent_topic", 0) + 1
        return True

    def _renumbered(self, key: TopicKey, payload: bytes, state: _TopicState) -> bytes:
        if is_snapshot(payload):
            return _with_update_id(payload, state.shift, 0) if state.shift else payload
        gap = self.strikes("gap", key)
        if gap:
            state.shift += gap.by
        if self.strikes("reset", key):
            return _with_update_id(payload, 0, 1)
        return _with_update_id(payload, state.shift, 0) if state.shift else payload

    def _delayed(self, key: TopicKey, payload: bytes, state: _TopicState) -> list[bytes]:
        out = [payload]
        if stream_of(key[1]) == "book" and is_snapshot(payload):
            fault = self.strikes("late_snapshot", key)
            if fault:
                state.snapshot, state.waiting = payload, min(fault.by, HELD_MAX)
                return []
        if self.strikes("duplicate", key):
            out = [payload, payload]
        if state.held is not None:
            out, state.held = [*out, state.held], None
        elif self.strikes("reorder", key):
            state.held = payload
            return []
        if state.snapshot is not None:
            state.waiting -= 1
            if state.waiting <= 0:
                out, state.snapshot = [*out, state.snapshot], None
        return out


def is_snapshot(payload: bytes) -> bool:
    """Whether a data frame says ``snapshot``."""
    return b'"type":"snapshot"' in payload


def corrupted(payload: bytes, how: str, random: Random) -> bytes:
    """
    A damaged copy of a data frame.

    Args:
        payload: JSON text of a book or trade message.
        how: One of ``CORRUPTIONS``, or empty for any that is possible.
        random: Chooses.

    Returns:
        The damaged frame; the text cut in the middle where nothing else is possible.
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
    """The frame with its ``u`` shifted, or replaced where ``replacement`` is not zero."""
    message = msgspec.json.decode(payload)
    data = message["data"]
    data["u"] = replacement or data["u"] + shift
    return msgspec.json.encode(message)


def describe(faults: Mapping[str, Fault]) -> str:
    """The faults in force in one line, for the log."""
    return ", ".join(f"{fault.name}:every={fault.every}" for fault in faults.values())
