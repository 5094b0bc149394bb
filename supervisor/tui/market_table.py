"""The table of markets: its columns, its order, and what keys do to it. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from bybit_pipeline.supervisor.tui.formatting import (
    BUY,
    NONE,
    SELL,
    Cell,
    Column,
    amount,
    at_least,
    balance,
    delta,
    fitted,
    grid,
    number,
    source_text,
    styled,
)
from bybit_pipeline.supervisor.tui.state import Board, Market

UP, DOWN = "\x1b[A", "\x1b[B"


class Field(NamedTuple):
    """One column of the table: how it is shown, and what it is sorted by."""

    column: Column
    cell: Callable[[Market], Cell]
    key: Callable[[Market], Any]


def fields(board: Board, now: float) -> list[Field]:
    """The columns, in order; the first nine can be sorted by with the keys 1 to 9."""
    window, levels = board.window, board.levels
    right = {"is_right": True}

    def tpm(market: Market) -> Any:
        return market.window(window).get("tpm")

    def volume_delta(market: Market) -> Any:
        return market.window(window).get("vol_delta")

    return [
        Field(Column("market"), lambda m: m.name, lambda m: m.name),
        Field(Column("book", least=4), lambda m: _state(m, now), lambda m: m.book.get("state")),
        Field(Column("price", **right, least=9), _price, lambda m: m.trades.get("last_price")),
        Field(
            Column("spread bps", **right, rank=1),
            lambda m: number(m.book.get("spread_bps"), 2),
            lambda m: m.book.get("spread_bps"),
        ),
        Field(Column("tpm", **right, least=6), lambda m: tpm_text(m, window), tpm),
        Field(
            Column(f"Δ {window}", **right, least=9), lambda m: delta_text(m, window), volume_delta
        ),
        Field(
            Column(f"imb {levels}", **right, least=5),
            lambda m: number(m.imbalance(levels), 2, is_signed=True),
            lambda m: m.imbalance(levels),
        ),
        Field(
            Column("bid wall", **right, rank=2, least=24),
            lambda m: _wall(m, "bid"),
            lambda m: _distance(m, "bid"),
        ),
        Field(
            Column("ask wall", **right, rank=2, least=24),
            lambda m: _wall(m, "ask"),
            lambda m: _distance(m, "ask"),
        ),
        Field(
            Column(" sell │ buy", rank=3),
            lambda m: balance(m.imbalance(levels), 5),
            lambda m: m.imbalance(levels),
        ),
        Field(
            Column("bid", **right, rank=4),
            lambda m: m.price(m.book.get("best_bid")),
            lambda m: m.book.get("best_bid"),
        ),
        Field(
            Column("ask", **right, rank=4),
            lambda m: m.price(m.book.get("best_ask")),
            lambda m: m.book.get("best_ask"),
        ),
        Field(Column("source", rank=5), lambda m: source_text(m.source), lambda m: m.source),
        Field(
            Column("trades", rank=6),
            lambda m: styled(str(m.trades.get("state", NONE))),
            lambda m: m.trades.get("state"),
        ),
        Field(
            Column(f"volume {window}", **right, rank=7),
            lambda m: amount(m.window(window).get("volume")),
            lambda m: m.window(window).get("volume"),
        ),
    ]


SORTABLE = 9


class Choices:
    """
    What a person has chosen with keys.

    Attributes:
        column: Sorted by this column.
        is_reversed: From the largest to the smallest.
        cursor: ``category:SYMBOL`` of the row that is marked, or None.
        opened: The market that is shown alone, or None.
        is_over: True after ``q``.
    """

    def __init__(self) -> None:
        self.column = 0
        self.is_reversed = False
        self.cursor: str | None = None
        self.opened: str | None = None
        self.is_over = False

    def press(self, key: str, shown: Sequence[Market]) -> None:
        """
        Take a key.

        Args:
            key: One character, or an escape sequence.
            shown: The markets, in the order of the table.
        """
        if key in ("q", "Q"):
            self.is_over = True
        elif key.isdecimal() and 1 <= int(key) <= SORTABLE:
            self._sort_by(int(key) - 1)
        elif key == "r":
            self.is_reversed = not self.is_reversed
        elif key in (UP, "k"):
            self._move(-1, shown)
        elif key in (DOWN, "j"):
            self._move(1, shown)
        elif key in ("\r", "\n") and self.cursor:
            self.opened = self.cursor
        elif key in ("\x1b", "b", "\x7f"):
            self.opened = None

    def _sort_by(self, column: int) -> None:
        """The first press shows the largest first, the second the smallest; names from A to Z."""
        if column == self.column:
            self.is_reversed = not self.is_reversed
        else:
            self.column, self.is_reversed = column, column > 1

    def _move(self, step: int, shown: Sequence[Market]) -> None:
        names = [market.name for market in shown]
        if not names:
            return
        at = names.index(self.cursor) + step if self.cursor in names else 0
        self.cursor = names[max(0, min(len(names) - 1, at))]

    def ordered(self, board: Board, now: float) -> list[Market]:
        """The markets in the order chosen; those without a value last, either way."""
        key = fields(board, now)[self.column].key
        markets = board.markets
        known = [market for market in markets if key(market) is not None]
        unknown = [market for market in markets if key(market) is None]
        return sorted(known, key=key, reverse=self.is_reversed) + unknown


def market_lines(
    board: Board, choices: Choices, now: float, *, width: int, height: int
) -> list[Text]:
    """The table in at most ``height`` lines; what does not fit is counted in the last one."""
    if height < 2:
        return []
    shown = fields(board, now)
    columns = [_titled(at, field.column, choices) for at, field in enumerate(shown)]
    markets = choices.ordered(board, now)
    rows_max = height - 1
    first, more = 0, 0
    if len(markets) > rows_max:
        rows_max -= 1
        names = [market.name for market in markets]
        at = names.index(choices.cursor) if choices.cursor in names else 0
        first = max(0, at - rows_max + 1)
        more = len(markets) - rows_max
    part = markets[first : first + rows_max]
    lines = grid(columns, [[field.cell(market) for field in shown] for market in part], width)
    for market, line in zip(part, lines[1:], strict=True):
        if market.is_silent(now):
            line.stylize("dim")
        if market.name == choices.cursor:
            line.pad_right(width - line.cell_len)
            line.stylize("reverse")
    if more:
        above = f"{first} above, " if first else ""
        lines.append(Text(f"… {above}{more - first} more", style="dim"))
    return [fitted(line, width) for line in lines]


def _titled(at: int, column: Column, choices: Choices) -> Column:
    title = f"{at + 1} {column.title}" if at < SORTABLE else column.title
    if at == choices.column:
        title += "▼" if choices.is_reversed else "▲"
    return column._replace(title=title)


def _state(market: Market, now: float) -> Text:
    if market.is_silent(now):
        return Text(f"silent {now - market.heard:.0f}s", style="bold red")
    text = styled(str(market.book.get("state", NONE)))
    reason = market.book.get("reason")
    return text.append(f" {reason}") if reason else text


def _price(market: Market) -> Text:
    side = market.trades.get("last_side")
    style = {"Buy": BUY, "Sell": SELL}.get(str(side), "")
    if market.trades.get("state") == "stale":
        style = "dim"
    return Text(market.price(market.trades.get("last_price")), style=style)


def tpm_text(market: Market, window: str) -> Text:
    """Trades a minute; of a window that is partly observed it is a lower bound."""
    value = market.window(window).get("tpm")
    if value is not None and market.is_partial(window):
        return at_least(number(value, 0))
    return Text(number(value, 0), style="bold" if value else "")


def delta_text(market: Market, window: str) -> Text:
    """Volume delta; of a window that is partly observed it is about so much."""
    value = market.window(window).get("vol_delta")
    text = delta(value)
    if value is not None and market.is_partial(window):
        return Text.assemble(("~", "yellow"), text)
    return text


def _wall(market: Market, side: str) -> Text:
    wall = market.nearest_wall(side)
    if wall is None:
        return Text(NONE, style="dim")
    text = Text(f"{amount(wall.get('size'))} @ {market.price(wall.get('price'))} ")
    return text.append(f"{number(wall.get('distance_bps'), 1):>4}bp", style="yellow")


def _distance(market: Market, side: str) -> float | None:
    wall = market.nearest_wall(side)
    return None if wall is None else wall.get("distance_bps")
