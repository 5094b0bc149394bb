"""
The trades of many symbols: which symbols are followed, and their measures.

Decides which tape a message belongs to, which tapes a link event concerns, and how a tape becomes a
``trades.*`` record. Reads no clock and touches no socket.
"""

from collections.abc import Iterator, Sequence
from typing import Literal
from weakref import WeakValueDictionary

from bybit_pipeline.processes.trades.session import Session
from bybit_pipeline.processes.trades.tape import TPS_WINDOW_MS, GapNote, TradeCounts, TradeTape
from bybit_pipeline.processes.trades.window import DEFAULT_MAX_TRADES
from bybit_pipeline.shared.freshness.link import LinkDoubt
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

    Apply whole messages (``apply``, ``apply_link``) or single trades (``add_trade``). The getters
    answer for the exchange's time of the last trade or of the last ``advance``. They return None
    for a symbol that is not subscribed, for a window that is not configured, and while nothing is
    observed.

    Args:
        windows: Names of the windows, such as ``60s``.
        quantiles: Probabilities of the trade-size quantiles in the record; empty for none.
        volatility: True to put the realised volatility into the record.
        max_trades: Number of trades held per symbol.
        last_gap_id: Number below the ids of the gaps.

    Attributes:
        counts: Counts over all trades.
        ledger: The gaps of all symbols.
        source_changes: How often a tape was replaced, because its source changed or the exchange's
            time was wrong.

    Raises:
        ValueError: If a window is not a duration such as ``60s``.
    """

    def __init__(
        self,
        windows: Sequence[str] = DEFAULTS.windows,
        *,
        quantiles: Sequence[float] = (),
        volatility: bool = False,
        max_trades: int = DEFAULT_MAX_TRADES,
        last_gap_id: int = 0,
    ) -> None:
        self.counts = TradeCounts()
        self.source_changes = 0
        self._windows_ms = {name: window_seconds(name) * 1_000 for name in windows}
        self._quantiles = {str(quantile): quantile for quantile in quantiles}
        self._volatility = volatility
        self._unobserved = unobserved_window(quantiles=quantiles, with_volatility=volatility)
        self._max_trades = max_trades
        self.ledger = GapLedger(TradesGap, last_id=last_gap_id)
        self._tapes: dict[Key, TradeTape] = {}
        self._connectors: dict[Key, str] = {}
        self._sources: dict[str, Source] = {}
        self._sessions: WeakValueDictionary[tuple[str, int], Session] = WeakValueDictionary()
        """Sessions in use, by connector and session number."""

    # -- subscriptions ---------------------------------------------------------------------------

    def subscribe(
        self,
        symbol: str,
        category: Category = "linear",
        *,
        connector: str = "",
        stale_after_s: float = 0.0,
        gap: TradesGap | None = None,
    ) -> None:
        """
        Follow a symbol; repeating it changes nothing.

        Args:
            symbol, category: The market.
            connector: Name of the connector whose link events concern it.
            stale_after_s: Longest plausible silence in seconds; 0 to derive it from the stream.
            gap: An open gap that an earlier process could not close.
        """
        key = (category, symbol)
        if key not in self._tapes:
            self._connectors[key] = connector
            tape = self._tapes[key] = self._new_tape(category, symbol, stale_after_s)
            if gap is not None:
                tape.continue_gap(gap)
            tape.set_source(self._sources.get(connector))

    def unsubscribe(self, symbol: str, category: Category = "linear") -> None:
        """Stop following a symbol and drop its trades; an open gap ends at the last known time."""
        self.end(symbol, category)
        self._tapes.pop((category, symbol), None)
        self._connectors.pop((category, symbol), None)

    def end(
        self, symbol: str, category: Category = "linear", *, our_ns: int | None = None
    ) -> list[GapNote]:
        """End the tape of a symbol before it is unsubscribed; return the end of its open gap."""
        tape = self._tapes.get((category, symbol))
        return [] if tape is None else list(tape.end(our_ns))

    def tape(self, symbol: str, category: Category = "linear") -> TradeTape | None:
        """Return the tape of a symbol, or None if it is not followed."""
        return self._tapes.get((category, symbol))

    def tapes(self) -> list[TradeTape]:
        """Return all tapes, in the order of subscription."""
        return list(self._tapes.values())

    def gaps(self) -> list[TradesGap]:
        """Return the gaps in the ledger, oldest first."""
        return self.ledger.gaps()

    # -- messages --------------------------------------------------------------------------------

    def add_trade(self, symbol: str, trade: Trade, *, category: Category = "linear") -> bool:
        """
        Add one trade; return False for a duplicate or a symbol that is not followed.

        Raises:
            ValueError: If its price or size is not plausible (see ``fixed_point.is_plausible``).
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
        Apply a message of the market bus; return the gaps that it opened, closed or completed.

        A message from a new source replaces all tapes of the connector. A message sent at an
        impossible time is rejected; if the next message agrees with it, all tapes of the session
        are replaced. Notes about a replaced tape have an older generation than the new tape.

        Args:
            message: The trades of one symbol.
            symbol, category: The symbol, from the topic.
            lost: Number of messages of this topic that were missed just before it.
            our_ns: Time when it was received, by the clock of ``metric``, which never steps. None
                uses ``recv_ts_ns``, and no time counts as impossible.
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
            if not session.confirms_jump(message.exchange_ts_ms, our_ns):
                self.counts.invalid += len(message.trades)
                return [*notes, *tape.miss("bad_time")]
            notes += self._restart(session, message.exchange_ts_ms, our_ns)
            tape = self._tapes[key]
            notes += self._join(tape, message.session)
        if session.observe(message.exchange_ts_ms, our_ns):
            for other in self._tapes.values():
                if other.session is session:
                    other.advance(our_ns)
        tape.received_ns = our_ns
        return [*notes, *tape.apply(message, lost)]

    def apply_link(
        self, connector: str, message: LinkMessage, *, our_ns: int | None = None
    ) -> list[GapNote]:
        """Apply an event of a connector's link; return the gaps that it opened or closed."""
        our_ns = message.recv_ts_ns if our_ns is None else our_ns
        notes = self._set_source(connector, message.source, our_ns)
        if message.event == "disconnected":
            notes += self.interrupt(connector, "disconnected")
        elif message.event == "connected":
            # A connector that was killed did not announce the disconnect.
            notes += self.interrupt(connector, "disconnected", except_session=message.session)
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

    def interrupt(
        self,
        connector: str,
        reason: Literal["disconnected", "process_down"],
        *,
        except_session: int | None = None,
    ) -> list[GapNote]:
        """
        Stop observing the markets of a connector; return the gaps that opened.

        Args:
            connector: Name of the connector.
            reason: Cause of the interruption.
            except_session: If given, markets without a session or with this one are skipped.
        """
        notes: list[GapNote] = []
        for tape in self._tapes_of(connector):
            session = tape.session
            if except_session is None or (session and session.session_id != except_session):
                notes += tape.interrupt(reason)
        return notes

    def doubt_link(self, connector: str, doubt: LinkDoubt | None) -> list[GapNote]:
        """Doubt the trades of a connector, or trust them again; return what became of gaps."""
        return [note for tape in self._tapes_of(connector) for note in tape.doubt(doubt)]

    def check_silence(self, our_ns: int) -> tuple[list[float], list[GapNote]]:
        """
        Stop observing the markets that are silent for implausibly long; call it often.

        Returns:
            The silence of each of them in seconds, and the gaps that opened.
        """
        silent_s: list[float] = []
        notes: list[GapNote] = []
        for tape in self._tapes.values():
            if tape.is_silent(our_ns):
                silent_s.append((our_ns - tape.received_ns) / 1e9)
                notes += tape.interrupt_silent()
        return silent_s, notes

    def advance(self, now_ns: int) -> None:
        """Move the exchange's time of all tapes to its value when our clock shows ``now_ns``."""
        for tape in self._tapes.values():
            tape.advance(now_ns)

    # -- measures --------------------------------------------------------------------------------

    def get_tpm(
        self, symbol: str, window: str = "60s", *, category: Category = "linear"
    ) -> float | None:
        """Return the trades per minute over a window."""
        return self._measures(symbol, window, category).tpm

    def get_tps(self, symbol: str, *, category: Category = "linear") -> float | None:
        """Return the trades per second over 10 seconds."""
        tape = self._tapes.get((category, symbol))
        return None if tape is None else _tps(tape)

    def get_vol_delta(
        self, symbol: str, window: str = "60s", *, category: Category = "linear"
    ) -> float | None:
        """Return the size bought minus the size sold over a window."""
        return self._measures(symbol, window, category).vol_delta

    def get_buy_sell_ratio(
        self, symbol: str, window: str = "60s", *, category: Category = "linear"
    ) -> float | None:
        """Return the size bought divided by the size sold over a window; None without sells."""
        return self._measures(symbol, window, category).buy_sell_ratio

    def metric(
        self,
        tape: TradeTape,
        our_ns: int,
        *,
        source: Source,
        process: str,
        epoch: str,
        seq: int,
        publish_ts_ns: int,
        alive_ts_ns: int | None = None,
    ) -> Trades:
        """
        Return the ``trades.*`` record of a tape.

        Args:
            tape: The tape of one market.
            our_ns: Time of our clock at which the windows end; the tape advances to it.
            source, process, epoch, seq, publish_ts_ns, alive_ts_ns: Copied into the record.
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
            alive_ts_ns=alive_ts_ns,
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

    def _window(self, tape: TradeTape, window_ms: int, our_ns: int | None = None) -> Window:
        """Return a window of a tape, without numbers if it was not observed and has no trade."""
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

    def _new_tape(self, category: Category, symbol: str, stale_after_s: float) -> TradeTape:
        return TradeTape(
            category,
            symbol,
            windows_ms=list(self._windows_ms.values()),
            max_trades=self._max_trades,
            ledger=self.ledger,
            counts=self.counts,
            stale_after_s=stale_after_s,
        )

    def _tapes_of(self, connector: str) -> list[TradeTape]:
        return [tape for key, tape in self._tapes.items() if self._connectors[key] == connector]

    def _set_source(self, connector: str, source: Source, our_ns: int) -> list[GapNote]:
        """Set the source of a connector; if it changed, replace the connector's tapes."""
        notes: list[GapNote] = []
        if self._sources.get(connector) == source:
            return notes
        self._sources[connector] = source
        for tape in self._tapes_of(connector):
            if tape.source is not None and tape.source != source:
                notes += tape.end(our_ns)
                tape = self._replace(tape, "source_change")
            tape.set_source(source)
        return notes

    def _restart(self, session: Session, exchange_ts_ms: int, our_ns: int) -> list[GapNote]:
        """
        Replace the tapes of a session, because they were counted by a wrong exchange time.

        If our clock was suspended instead, an open gap lasts until the exchange's new time.
        """
        notes: list[GapNote] = []
        for tape in self.tapes():
            if tape.session is session:
                notes += tape.end(our_ns, true_ms=exchange_ts_ms)
                self._replace(tape, "bad_time").set_source(tape.source)
        return notes

    def _replace(self, tape: TradeTape, reason: TradesReason) -> TradeTape:
        self.source_changes += 1
        successor = self._tapes[tape.category, tape.symbol] = tape.successor(reason)
        successor.link_doubt = tape.link_doubt
        return successor

    def _join(self, tape: TradeTape, session_id: int) -> list[GapNote]:
        key = (self._connectors[tape.category, tape.symbol], session_id)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(session_id)
        return list(tape.join(session))

    def _named(self, topics: Sequence[str]) -> Iterator[TradeTape]:
        for text in topics:
            topic: Topic = parse_topic(text)
            if topic.kind == "trade":
                tape = self._tapes.get((topic.category, topic.symbol))
                if tape is not None:
                    yield tape


def _tps(tape: TradeTape, now_ns: int | None = None) -> float | None:
    """Return the trades per second over 10 seconds, or None if none of them was observed."""
    trades = tape.windows.count(TPS_WINDOW_MS)
    is_known = trades or tape.covered_ms(TPS_WINDOW_MS, now_ns)
    return trades * 1_000 / TPS_WINDOW_MS if is_known else None
