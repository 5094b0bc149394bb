"""
Trades of many symbols: who is followed, and what their trades say.

Decides which tape a message belongs to, which of them an event of a link concerns, and how a tape
reads as a metric. Reads no clock and touches no socket.
"""

from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

from bybit_pipeline.processes.trades.tape import (
    TPS_WINDOW_MS,
    GapNote,
    Session,
    Tape,
    TradeCounts,
)
from bybit_pipeline.processes.trades.window import DEFAULT_MAX_TRADES
from bybit_pipeline.shared.settings.config import TradesConfig, window_seconds
from bybit_pipeline.shared.wire.gaps import GapLedger, TradesGap
from bybit_pipeline.shared.wire.messages import Category, LinkMessage, Source, Trade, TradesMessage
from bybit_pipeline.shared.wire.topics import Topic, parse_topic
from bybit_pipeline.shared.wire.trades import Trades, TradesReason, Window, unobserved_window

DEFAULTS = TradesConfig()

Key = tuple[str, str]
"""Category and symbol."""


class TradesAggregator:
    """
    One tape for every subscribed symbol of every category; usable without arguments.

    Feed it whole messages (``apply``, ``apply_link``) or single trades (``add_trade``). The
    getters answer for the exchange's time of the last trade, or of the last ``advance``; None for
    a symbol that is not subscribed, a window that is not configured, or nothing observed yet.

    Args:
        windows: Names such as ``60s``.
        quantiles: Probabilities of the trade-size quantiles of ``metrics``; none costs nothing.
        volatility: Whether ``metrics`` holds realised volatility.
        max_trades: How many trades a symbol may hold.

    Raises:
        ValueError: If a window is not named like one.
    """

    def __init__(
        self,
        windows: Sequence[str] = DEFAULTS.windows,
        *,
        quantiles: Sequence[float] = (),
        volatility: bool = False,
        max_trades: int = DEFAULT_MAX_TRADES,
    ) -> None:
        self.counts = TradeCounts()
        self.source_changes = 0
        """How often a tape was replaced because its source or the exchange's time changed."""
        self._windows_ms = {name: window_seconds(name) * 1_000 for name in windows}
        self._quantiles = {str(quantile): quantile for quantile in quantiles}
        self._volatility = volatility
        self._unobserved = unobserved_window(quantiles=quantiles, with_volatility=volatility)
        self._max_trades = max_trades
        self._ledger = GapLedger(TradesGap)
        self._tapes: dict[Key, Tape] = {}
        self._connectors: dict[Key, str] = {}
        self._sources: dict[str, Source] = {}
        self._sessions: WeakValueDictionary[tuple[str, int], Session] = WeakValueDictionary()
        """The connections that tapes get their trades over; numbers are a connector's own."""

    # -- who is followed -------------------------------------------------------------------------

    def subscribe(self, symbol: str, category: Category = "linear", *, connector: str = "") -> None:
        """Follow a symbol; its trades come through ``connector``, whose link events concern it."""
        key = (category, symbol)
        if key not in self._tapes:
            self._connectors[key] = connector
            tape = self._tapes[key] = self._new_tape(category, symbol)
            tape.source = self._sources.get(connector)

    def unsubscribe(self, symbol: str, category: Category = "linear") -> None:
        """Follow a symbol no longer and forget its trades; its gap ends where time was last."""
        self.end(symbol, category)
        self._tapes.pop((category, symbol), None)
        self._connectors.pop((category, symbol), None)

    def end(
        self, symbol: str, category: Category = "linear", *, our_ns: int | None = None
    ) -> list[GapNote]:
        """The trades of a symbol are wanted no longer; the gap that ends with that, if one does."""
        tape = self._tapes.get((category, symbol))
        return [] if tape is None else list(tape.end(our_ns))

    def tape(self, symbol: str, category: Category = "linear") -> Tape | None:
        """The tape of a symbol, if it is followed."""
        return self._tapes.get((category, symbol))

    def tapes(self) -> list[Tape]:
        """Every tape, in the order of subscription."""
        return list(self._tapes.values())

    def gaps(self) -> list[TradesGap]:
        """The gap ledger, oldest first."""
        return self._ledger.gaps()

    # -- what happens ----------------------------------------------------------------------------

    def add_trade(self, symbol: str, trade: Trade, *, category: Category = "linear") -> bool:
        """
        Take in one trade; False for a duplicate or a symbol that is not followed.

        Raises:
            ValueError: If its price or size is not a positive number of a believable magnitude.
        """
        tape = self._tapes.get((category, symbol))
        return tape is not None and tape.add_trade(trade)

    def apply(
        self,
        message: TradesMessage,
        symbol: str,
        *,
        category: Category = "linear",
        lost: int = 0,
        our_ns: int | None = None,
    ) -> Sequence[GapNote]:
        """
        Take in a message of the market bus; the gaps it opened, closed or completed.

        A message of another source than the connector's last drops all that it told before. One
        that was sent at an impossible time is refused; if the next agrees with it, everything of
        this connection begins anew. The notes about what was dropped are of an older generation
        than the tape.

        Args:
            message: The trades of one symbol.
            symbol, category: Whose, as the topic says.
            lost: How many messages of this topic are missing just before it.
            our_ns: When it was received, on the clock of ``metrics``, which does not step. Without
                it ``recv_ts_ns`` serves, by which no time can be told to be impossible.
        """
        is_steady = our_ns is not None and message.source != "replay"
        our_ns = message.recv_ts_ns if our_ns is None else our_ns
        key = (category, symbol)
        tape = self._tapes.get(key)
        if tape is None:
            return ()
        session, notes = tape.session, list[GapNote]()
        if (
            session is None
            or session.session_id != message.session
            or tape.source != message.source
        ):
            notes = self._set_source(self._connectors[key], message.source, our_ns)
            tape = self._tapes[key]
            notes += self._join(tape, message.session)
            session = tape.session
            assert session is not None
        if is_steady and not session.clock.fits(message.exchange_ts_ms, our_ns):
            if not session.confirms_a_jump(message.exchange_ts_ms, our_ns):
                self.counts.invalid += len(message.trades)
                return [*notes, *tape.miss("bad_time")]
            notes += self._begin_anew(session, message.exchange_ts_ms, our_ns)
            tape = self._tapes[key]
            notes += self._join(tape, message.session)
        if session.observe(message.exchange_ts_ms, our_ns):
            for other in self._tapes.values():
                if other.session is session:
                    other.advance(our_ns)
        return [*notes, *tape.apply(message, lost)]

    def apply_link(
        self, connector: str, message: LinkMessage, *, our_ns: int | None = None
    ) -> list[GapNote]:
        """Take in what happened to a connector's link; the gaps it opened or closed."""
        our_ns = message.recv_ts_ns if our_ns is None else our_ns
        notes = self._set_source(connector, message.source, our_ns)
        if message.event == "disconnected":
            notes += self.interrupt(connector)
        elif message.event == "connected":
            # A connector that was killed has not said that it disconnected.
            notes += self.interrupt(connector, except_session=message.session)
        elif message.event == "subscribed":
            for tape in self._named(message.topics):
                notes += self._join(tape, message.session)
                notes += tape.resume(our_ns)
        elif message.event == "missed":
            for tape in self._named(message.topics):
                notes += tape.miss("bus_gap")
        else:
            for tape in self._named(message.topics):
                notes += tape.interrupt(message.event)
        return notes

    def interrupt(self, connector: str, *, except_session: int | None = None) -> list[GapNote]:
        """
        Trades of a connector are missed from now on; the gaps that opened.

        Args:
            connector: Whose markets.
            except_session: Markets that are on this connection already stay as they are, and so
                do those that are on none.
        """
        notes: list[GapNote] = []
        for tape in self._tapes_of(connector):
            session = tape.session
            if except_session is None or (session and session.session_id != except_session):
                notes += tape.interrupt("disconnected")
        return notes

    def advance(self, now_ns: int) -> None:
        """Let the exchange's time go on to where it is when our clock shows ``now_ns``."""
        for tape in self._tapes.values():
            tape.advance(now_ns)

    # -- what the trades say ---------------------------------------------------------------------

    def get_tpm(
        self, symbol: str, window: str = "60s", *, category: Category = "linear"
    ) -> float | None:
        """Trades a minute."""
        return self._measures(symbol, window, category).tpm

    def get_tps(self, symbol: str, *, category: Category = "linear") -> float | None:
        """Trades a second, over 10 seconds."""
        tape = self._tapes.get((category, symbol))
        return None if tape is None else _tps(tape)

    def get_vol_delta(
        self, symbol: str, window: str = "60s", *, category: Category = "linear"
    ) -> float | None:
        """Bought minus sold size."""
        return self._measures(symbol, window, category).vol_delta

    def get_buy_sell_ratio(
        self, symbol: str, window: str = "60s", *, category: Category = "linear"
    ) -> float | None:
        """Bought over sold size; None without sells."""
        return self._measures(symbol, window, category).buy_sell_ratio

    def metric(
        self,
        tape: Tape,
        our_ns: int,
        *,
        source: Source,
        process: str,
        epoch: str,
        seq: int,
        publish_ts_ns: int,
    ) -> Trades:
        """
        The ``trades.*`` record of a tape.

        Moves the exchange's time of the tape on to where it is when our clock shows ``our_ns``.

        Args:
            tape: The trades of one market.
            our_ns: The time of our clock at which the windows end.
            source, process, epoch, seq, publish_ts_ns: Copied into the record.
        """
        tape.advance(our_ns)
        state, last, windows = tape.state(our_ns), tape.last_trade, tape.windows
        return Trades(
            category=tape.category,
            symbol=tape.symbol,
            source=source,
            process=process,
            epoch=epoch,
            seq=seq,
            match_ts_ms=last.match_ts_ms if last else None,
            exchange_ts_ms=tape.exchange_ts_ms,
            recv_ts_ns=tape.recv_ts_ns,
            publish_ts_ns=publish_ts_ns,
            state=state,
            reason=None if state == "live" else tape.reason,
            as_of_ms=windows.now_ms,
            last_price=last.price if last else None,
            last_size=last.size if last else None,
            last_side=last.side if last else None,
            last_trade_id=last.trade_id if last else None,
            trades_total=windows.trades_total,
            cvd=windows.cvd,
            untrusted_s=tape.untrusted_s(),
            tps=_tps(tape, our_ns),
            windows={
                name: self._window(tape, window_ms, our_ns)
                for name, window_ms in self._windows_ms.items()
            },
        )

    def _window(self, tape: Tape, window_ms: int, our_ns: int | None = None) -> Window:
        """A window of a tape, without numbers if it was not observed and holds no trade."""
        covered_ms = tape.covered_ms(window_ms, our_ns)
        if not covered_ms and not tape.windows.count(window_ms):
            return self._unobserved
        return tape.windows.measures(
            window_ms,
            coverage_s=covered_ms / 1_000,
            with_volatility=self._volatility,
            quantiles=self._quantiles,
        )

    def _measures(self, symbol: str, window: str, category: Category) -> Window:
        tape, window_ms = self._tapes.get((category, symbol)), self._windows_ms.get(window)
        if tape is None or window_ms is None:
            return self._unobserved
        return self._window(tape, window_ms)

    # -- tapes and sessions ----------------------------------------------------------------------

    def _new_tape(self, category: Category, symbol: str) -> Tape:
        return Tape(
            category,
            symbol,
            windows_ms=list(self._windows_ms.values()),
            max_trades=self._max_trades,
            ledger=self._ledger,
            counts=self.counts,
        )

    def _tapes_of(self, connector: str) -> list[Tape]:
        return [tape for key, tape in self._tapes.items() if self._connectors[key] == connector]

    def _set_source(self, connector: str, source: Source, our_ns: int) -> list[GapNote]:
        """A connector with another source than before: everything it told before is dropped."""
        notes: list[GapNote] = []
        if self._sources.get(connector) == source:
            return notes
        self._sources[connector] = source
        for tape in self._tapes_of(connector):
            if tape.source is not None and tape.source != source:
                notes += tape.end(our_ns)
                tape = self._replace(tape, "source_change")
            tape.source = source
        return notes

    def _begin_anew(self, session: Session, exchange_ts_ms: int, our_ns: int) -> list[GapNote]:
        """
        The exchange's time was wrong: nothing holds that was counted by it.

        Or ours stood still, as it may while a machine sleeps: a gap that is open lasted as long.
        """
        notes: list[GapNote] = []
        for tape in self.tapes():
            if tape.session is session:
                notes += tape.end(our_ns, true_ms=exchange_ts_ms)
                self._replace(tape, "bad_time").source = tape.source
        return notes

    def _replace(self, tape: Tape, reason: TradesReason) -> Tape:
        self.source_changes += 1
        successor = self._tapes[tape.category, tape.symbol] = tape.successor(reason)
        return successor

    def _join(self, tape: Tape, session_id: int) -> list[GapNote]:
        key = (self._connectors[tape.category, tape.symbol], session_id)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(session_id)
        return list(tape.join(session))

    def _named(self, topics: Sequence[str]) -> Iterator[Tape]:
        for text in topics:
            topic: Topic = parse_topic(text)
            if topic.kind == "trade":
                tape = self._tapes.get((topic.category, topic.symbol))
                if tape is not None:
                    yield tape


def _tps(tape: Tape, now_ns: int | None = None) -> float | None:
    """Trades a second over 10 seconds; None when none of them was observed."""
    trades = tape.windows.count(TPS_WINDOW_MS)
    is_known = trades or tape.covered_ms(TPS_WINDOW_MS, now_ns)
    return trades * 1_000 / TPS_WINDOW_MS if is_known else None
