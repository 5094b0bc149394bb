"""
One websocket connection as the trades see it: the exchange's time by its messages. Pure.

``our_ns`` is a time of a clock of ours that never steps.
"""

MAX_AHEAD_MS = 60_000
"""
A trade is invalid if it was matched this much later than its message was sent, and so is a message
sent this much later than the exchange's time: it would move the time of all windows forward
permanently and empty them.
"""
MAX_BEHIND_MS = 3_600_000
"""A message sent this much earlier than the exchange's time shows that this time was wrong."""
DRIFT_SHIFT = 12
"""The least delay is forgotten by one part in 4,096, more than any two clocks drift apart."""


class ExchangeClock:
    """
    The exchange's time: the time of the newest message plus the time since then by our clock.

    Only differences of our clock are used, so a recording from months ago works too. Every message
    sets the offset again, so neither a drift nor a step of our clock accumulates. The estimate is
    behind by the delay of the newest message, and it may go back: callers keep its maximum.

    A later session begins with the estimate of the least delayed messages. Messages that were held
    up before a disconnect would put its beginning into the time that was missed.
    """

    __slots__ = ("_least_delayed_ns", "_offset_ns", "_seen_ns")

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._least_delayed_ns = 0
        """The largest offset on which two messages in a row agree; fades with time."""
        self._seen_ns = 0
        """Time of the newest message by our clock."""

    @property
    def is_known(self) -> bool:
        """True once a message has set the time."""
        return self._offset_ns is not None

    def observe(self, exchange_ts_ms: int, recv_ts_ns: int) -> None:
        """Set the time from a message."""
        offset_ns, before_ns = exchange_ts_ms * 1_000_000 - recv_ts_ns, self._offset_ns
        self._offset_ns = offset_ns
        if before_ns is None:
            self._least_delayed_ns = offset_ns
        else:
            agreed_ns = offset_ns if offset_ns < before_ns else before_ns
            faded_ns = self._least_delayed_ns - ((recv_ts_ns - self._seen_ns) >> DRIFT_SHIFT)
            self._least_delayed_ns = agreed_ns if agreed_ns > faded_ns else faded_ns
        self._seen_ns = recv_ts_ns

    def at_ms(self, our_ns: int) -> int | None:
        """Return the exchange's time when our clock shows ``our_ns``, or None if unknown."""
        return None if self._offset_ns is None else (our_ns + self._offset_ns) // 1_000_000

    def fits(self, exchange_ts_ms: int, our_ns: int) -> bool:
        """Return True if a message may have been sent at that time, or if no time is known."""
        if self._offset_ns is None:
            return True
        ahead_ms = exchange_ts_ms - (our_ns + self._offset_ns) // 1_000_000
        return -MAX_BEHIND_MS <= ahead_ms <= MAX_AHEAD_MS

    def inherit(self, other: "ExchangeClock") -> None:
        """Copy the time of an earlier session, unless this one is known already."""
        if self._offset_ns is None and other._offset_ns is not None:
            self._offset_ns = max(other._offset_ns, other._least_delayed_ns)
            self._least_delayed_ns, self._seen_ns = other._least_delayed_ns, other._seen_ns


class Session:
    """One websocket connection: the exchange's time by its messages, and its last message."""

    __slots__ = ("__weakref__", "_rejected", "clock", "last_message_ms", "session_id")

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.clock = ExchangeClock()
        self.last_message_ms: int | None = None
        self._rejected: ExchangeClock | None = None
        """The exchange's time by the last message, if that message was rejected."""

    def confirms_jump(self, exchange_ts_ms: int, our_ns: int) -> bool:
        """
        Return True if a message whose time does not fit agrees with the previous one, which did not
        fit either.

        A single such message is invalid. Two that agree mean that the exchange's time was wrong
        before, or that our clock was suspended, as it may be while a machine sleeps.
        """
        before, self._rejected = self._rejected, ExchangeClock()
        self._rejected.observe(exchange_ts_ms, our_ns)
        return before is not None and before.fits(exchange_ts_ms, our_ns)

    def observe(self, exchange_ts_ms: int, our_ns: int) -> bool:
        """Set the time from a message; return True if it was unknown before."""
        is_first = not self.clock.is_known
        self.clock.observe(exchange_ts_ms, our_ns)
        self._rejected = None
        if self.last_message_ms is None or exchange_ts_ms > self.last_message_ms:
            self.last_message_ms = exchange_ts_ms
        return is_first
