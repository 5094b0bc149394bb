"""The table of markets: its columns, its order, and its keys. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from bybit_pipeline.supervisor.tui.formatting import (
    BUY,
    NONE,
    SELL,
    Cell,
    Column,
    age_text,
    amount,
    at_least,
    balance,
    delta,
    feed_text,
    fitted,
    grid,
    number,
    source_text,
    styled,
)
from bybit_pipeline.supervisor.tui.state import TableMarket, TableState

UP, DOWN = "\x1b[A", "\x1b[B"
SORTABLE = 9
"""Columns that a key sorts by."""
PLAIN_WIDTH = 10_000


class TableColumn(NamedTuple):
    """One column of the table, the text of its cells and its sort key."""

    column: Column
    cell: Callable[[TableMarket], Cell]
    key: Callable[[TableMarket], Any]


def table_columns(table: TableState, now: float) -> list[TableColumn]:
    """The columns, in order; the keys 1 to 9 sort by the first nine."""
    window, levels = table.window, table.levels
    right = {"is_right": True}

    def tpm(market: TableMarket) -> Any:
        return market.window(window).get("tpm")

    def volume_delta(market: TableMarket) -> Any:
        return market.window(window).get("vol_delta")

    return [
        TableColumn(Column("market"), lambda m: m.name, lambda m: m.name),
        TableColumn(
            Column("book", min_width=4), lambda m: _state(m, now), lambda m: m.book.get("state")
        ),
        TableColumn(
            Column("price", **right, min_width=9), _price, lambda m: m.trades.get("last_price")
        ),
        TableColumn(
            Column("spread bps", **right, rank=1),
            lambda m: number(m.book.get("spread_bps"), 2),
            lambda m: m.book.get("spread_bps"),
        ),
        TableColumn(Column("tpm", **right, min_width=6), lambda m: tpm_text(m, window), tpm),
        TableColumn(
            Column(f"Δ {window}", **right, min_width=9),
            lambda m: delta_text(m, window),
            volume_delta,
        ),
        TableColumn(
            Column(f"imb {levels}", **right, min_width=5),
            lambda m: number(m.imbalance(levels), 2, is_signed=True),
            lambda m: m.imbalance(levels),
        ),
        TableColumn(
            Column("bid wall", **right, rank=2, min_width=24),
            lambda m: _wall(m, "bid"),
            lambda m: _distance(m, "bid"),
        ),
        TableColumn(
            Column("ask wall", **right, rank=2, min_width=24),
            lambda m: _wall(m, "ask"),
            lambda m: _distance(m, "ask"),
        ),
        TableColumn(
            Column("heard b/t", **right, rank=1),
            lambda m: _heard(m, now),
            lambda m: m.heard_s("orderbook", now),
        ),
        TableColumn(
            Column(" sell │ buy", rank=3),
            lambda m: balance(m.imbalance(levels), 5),
            lambda m: m.imbalance(levels),
        ),
        TableColumn(
            Column("bid", **right, rank=4),
            lambda m: m.price(m.book.get("best_bid")),
            lambda m: m.book.get("best_bid"),
        ),
        TableColumn(
            Column("ask", **right, rank=4),
            lambda m: m.price(m.book.get("best_ask")),
            lambda m: m.book.get("best_ask"),
        ),
        TableColumn(Column("source", rank=5), market_source_text, lambda m: m.source),
        TableColumn(
            Column("trades", rank=6),
            lambda m: styled(str(m.trades.get("state", NONE))),
            lambda m: m.trades.get("state"),
        ),
        TableColumn(
            Column(f"volume {window}", **right, rank=7),
            lambda m: amount(m.window(window).get("volume")),
            lambda m: m.window(window).get("volume"),
        ),
    ]


class ViewState:
    """
    What the user has selected with keys.

    Attributes:
        column: Index of the column to sort by.
        is_reversed: True for the largest first.
        cursor: ``category:SYMBOL`` of the marked row, or None.
        opened: ``category:SYMBOL`` of the market that is shown alone, or None.
        is_over: True after ``q``.
    """

    def __init__(self) -> None:
        self.column = 0
        self.is_reversed = False
        self.cursor: str | None = None
        self.opened: str | None = None
        self.is_over = False

    def press(self, key: str, shown: Sequence[TableMarket]) -> None:
        """
        Handle a key.

        Args:
            key: One character, or an escape sequence.
            shown: The markets in the order of the table.
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
        """Sort by a column, largest first except for text; a second time reverses the order."""
        if column == self.column:
            self.is_reversed = not self.is_reversed
        else:
            self.column, self.is_reversed = column, column > 1

    def _move(self, step: int, shown: Sequence[TableMarket]) -> None:
        names = [market.name for market in shown]
        if not names:
            return
        at = names.index(self.cursor) + step if self.cursor in names else 0
        self.cursor = names[max(0, min(len(names) - 1, at))]

    def ordered(self, table: TableState, now: float) -> list[TableMarket]:
        """The markets in the selected order; markets without a value are last in any order."""
        key = table_columns(table, now)[self.column].key
        markets = table.markets
        known = [market for market in markets if key(market) is not None]
        unknown = [market for market in markets if key(market) is None]
        return sorted(known, key=key, reverse=self.is_reversed) + unknown


def market_lines(
    table: TableState, view: ViewState, now: float, *, width: int, height: int
) -> list[Text]:
    """The table in at most ``height`` lines; the last one counts the rows that do not fit."""
    if height < 2:
        return []
    shown = table_columns(table, now)
    columns = [_with_key(at, field.column, view) for at, field in enumerate(shown)]
    markets = view.ordered(table, now)
    rows_max = height - 1
    first, more = 0, 0
    if len(markets) > rows_max:
        rows_max -= 1
        names = [market.name for market in markets]
        at = names.index(view.cursor) if view.cursor in names else 0
        first = max(0, at - rows_max + 1)
        more = len(markets) - rows_max
    part = markets[first : first + rows_max]
    lines = grid(columns, [[field.cell(market) for field in shown] for market in part], width)
    for market, line in zip(part, lines[1:], strict=True):
        if market.is_silent(now):
            line.stylize("dim")
        if market.name == view.cursor:
            line.pad_right(width - line.cell_len)
            line.stylize("reverse")
    if more:
        above = f"{first} above, " if first else ""
        lines.append(Text(f"… {above}{more - first} more", style="dim"))
    return [fitted(line, width) for line in lines]


def _with_key(at: int, column: Column, view: ViewState) -> Column:
    title = f"{at + 1} {column.title}" if at < SORTABLE else column.title
    if at == view.column:
        title += "▼" if view.is_reversed else "▲"
    return column._replace(title=title)


def _state(market: TableMarket, now: float) -> Text:
    if market.is_silent(now):
        return Text(f"silent {now - market.received:.0f}s", style="bold red")
    return state_text(market.book)


def state_text(payload: Mapping[str, Any]) -> Text:
    """State and reason of a message; a market that the exchange rejects is no alarm."""
    reason = payload.get("reason")
    if reason == "rejected":
        return Text("rejected", style="dim")
    text = styled(str(payload.get("state", NONE)))
    return text.append(f" {reason}") if reason else text


def _heard(market: TableMarket, now: float) -> str:
    """Seconds since the exchange was last heard, for book and trades."""
    ages = (market.heard_s(kind, now) for kind in ("orderbook", "trades"))
    return " / ".join(age_text(seconds) for seconds in ages)


def market_source_text(market: TableMarket) -> Text:
    """Where the data of a market really come from."""
    if market.source == "live" and market.feed:
        return feed_text(market.feed)
    return source_text(market.source)


def _price(market: TableMarket) -> Text:
    side = market.trades.get("last_side")
    style = {"Buy": BUY, "Sell": SELL}.get(str(side), "")
    if market.trades.get("state") == "stale":
        style = "dim"
    return Text(market.price(market.trades.get("last_price")), style=style)


def tpm_text(market: TableMarket, window: str) -> Text:
    """Trades per minute; marked as a lower bound while the window is partly observed."""
    value = market.window(window).get("tpm")
    if value is not None and market.is_partial(window):
        return at_least(number(value, 0))
    return Text(number(value, 0), style="bold" if value else "")


def delta_text(market: TableMarket, window: str) -> Text:
    """Volume delta; marked as approximate while the window is partly observed."""
    value = market.window(window).get("vol_delta")
    text = delta(value)
    if value is not None and market.is_partial(window):
        return Text.assemble(("~", "yellow"), text)
    return text


def _wall(market: TableMarket, side: str) -> Text:
    wall = market.nearest_wall(side)
    if wall is None:
        return Text(NONE, style="dim")
    text = Text(f"{amount(wall.get('size'))} @ {market.price(wall.get('price'))} ")
    return text.append(f"{number(wall.get('distance_bps'), 1):>4}bps", style="yellow")


def _distance(market: TableMarket, side: str) -> float | None:
    wall = market.nearest_wall(side)
    return None if wall is None else wall.get("distance_bps")


def plain_table(table: TableState) -> list[Text]:
    """The table without colours and without a limit of width, for output without a terminal."""
    window, levels = table.window, table.levels
    titles = (
        "bid",
        "ask",
        "mid",
        "spread bps",
        "imbalance",
        "last",
        "tpm",
        f"delta {window}",
        "walls",
    )
    columns = [
        Column("market"),
        Column("book"),
        *(Column(title, is_right=True) for title in titles),
        Column("source"),
    ]
    rows: list[list[Cell]] = []
    for market in table.markets:
        book, trades, measures = market.book, market.trades, market.window(window)
        walls = book.get("densities")
        rows.append(
            [
                market.name,
                styled(str(book.get("state", NONE))),
                number(book.get("best_bid")),
                number(book.get("best_ask")),
                number(book.get("mid_price")),
                number(book.get("spread_bps"), 2),
                number(market.imbalance(levels), 2),
                number(trades.get("last_price")),
                number(measures.get("tpm"), 0),
                number(measures.get("vol_delta"), 3),
                NONE if walls is None else str(len(walls)),
                market_source_text(market),
            ]
        )
    return grid(columns, rows, PLAIN_WIDTH)
