"""The screen of ``watch``: a table of markets, or one market in detail. Pure."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from rich.text import Text

from bybit_pipeline.supervisor.tui.formatting import (
    BUY,
    NONE,
    SELL,
    WARNINGS,
    Cell,
    Column,
    age_text,
    amount,
    at_least,
    balance,
    bar,
    clock_time,
    duration,
    fitted,
    grid,
    number,
    rate,
)
from bybit_pipeline.supervisor.tui.market_table import (
    ViewState,
    delta_text,
    market_lines,
    market_source_text,
    state_text,
    tpm_text,
)
from bybit_pipeline.supervisor.tui.state import TableMarket, TableState

LADDER_MIN, LADDER_MAX = 40, 76
SIDE_MIN = 30
BETWEEN = "   "


def watch_screen(
    table: TableState, view: ViewState, now: float, *, width: int, height: int
) -> list[Text]:
    """The lines of the screen: at most ``height``, each at most ``width`` cells wide."""
    market = table.get(view.opened) if view.opened else None
    if market is None and len(table.wanted) == 1 and len(table) == 1:
        market = table.markets[0]
    if market is not None:
        keys = "q quit" if view.opened is None else "esc back  q quit"
        return market_screen(market, now, keys=keys, width=width, height=height)
    if not len(table):
        names = ", ".join(table.missing)
        return [fitted(Text(f"no data yet for {names}  q quit", style="yellow"), width)]
    head = Text("bybit-pipeline  ", style="bold")
    sources = {market.source: market for market in table.markets}
    for source, market in sorted(sources.items()):
        head.append(market_source_text(market))
        source = market.feed.get("kind", source) if source == "live" else source
        if source in WARNINGS:
            head.append(f" {WARNINGS[source]} ", style="bold red")
    head.append(f"  {len(table)} markets  ", style="dim")
    if table.missing:
        head.append(f"no data yet for {', '.join(table.missing)}", style="yellow")
    hint = Text("q quit  1-9 sort  r reverse  ↑ ↓ select  enter open", style="dim")
    lines = [fitted(head, width), fitted(hint, width)]
    rows = market_lines(table, view, now, width=width, height=height - len(lines))
    return [*lines, *rows][:height]


def market_screen(
    market: TableMarket, now: float, *, keys: str = "", width: int, height: int
) -> list[Text]:
    """One market: the ladder, and beside it windows, walls and recent trades if there is room."""
    lines = [fitted(line, width) for line in _head(market, now, keys, width)]
    left_width = min(LADDER_MAX, max(LADDER_MIN, width * 45 // 100))
    right_width = width - left_width - len(BETWEEN)
    rows = height - len(lines)
    if right_width < SIDE_MIN:
        return [*lines, *ladder_lines(market, width=width, height=rows)][:height]
    left = ladder_lines(market, width=left_width, height=rows)
    right = _side(market, width=right_width, height=rows)
    for at in range(min(rows, max(len(left), len(right)))):
        line = left[at].copy() if at < len(left) else Text()
        line.pad_right(left_width - line.cell_len)
        if at < len(right):
            line.append(BETWEEN).append(right[at])
        lines.append(fitted(line, width))
    return lines[:height]


def _head(market: TableMarket, now: float, keys: str, width: int) -> list[Text]:
    book, source = market.book, market.source
    first = Text.assemble((market.name, "bold"), "  ", market_source_text(market))
    if source == "live":
        source = market.feed.get("kind", source)
    if source in WARNINGS:
        first.append(f" {WARNINGS[source]}", style="bold red")
    if market.is_silent(now):
        first.append(f"  SILENT for {now - market.received:.0f} s", style="bold white on red")
    for name, kind, payload in (("book", "orderbook", book), ("trades", "trades", market.trades)):
        first.append(f"  {name} ").append(state_text(payload))
        heard_s = market.heard_s(kind, now)
        if heard_s is not None:
            first.append(f" {age_text(heard_s)} s ago", style="dim")
    side = {"Buy": BUY, "Sell": SELL}.get(str(market.trades.get("last_side")), "")
    second = Text("last ", style="dim")
    second.append(market.price(market.trades.get("last_price")), style=f"bold {side}".strip())
    for title, text in (
        ("mid", number(book.get("mid_price"), market.price_digits + 1)),
        ("weighted", number(book.get("weighted_mid"), market.price_digits + 2)),
        ("spread bps", number(book.get("spread_bps"), 2)),
        ("cvd", amount(market.trades.get("cvd"), is_signed=True)),
        ("tps", _tps(market)),
    ):
        more = Text(f"  {title} ", style="dim").append(text)
        if second.cell_len + more.cell_len + 2 + len(keys) <= width:
            second.append(more)
    second.append(" " * max(2, width - second.cell_len - len(keys)) + keys, style="dim")
    return [first, second]


def _tps(market: TableMarket) -> str | Text:
    value = market.trades.get("tps")
    text = rate(value)
    return at_least(text) if value is not None and market.is_tps_partial else text


# -- ladder ------------------------------------------------------------------------------------


def ladder_lines(market: TableMarket, *, width: int, height: int) -> list[Text]:
    """The best levels, asks above bids, with sizes as bars and a diamond beside walls."""
    book = market.book
    bids, asks = book.get("bids") or [], book.get("asks") or []
    if book.get("state") != "live" or not (bids or asks):
        reason = f" ({book['reason']})" if book.get("reason") else ""
        text = f"the book is {book['state']}{reason}" if "state" in book else "no book yet"
        return [Text(), Text(text, style="bold red")][:height]
    count = max(1, (height - 2) // 2)
    asks, bids = asks[:count], bids[:count]
    largest = max(size for _, size in (*asks, *bids))
    walls = {(wall["side"], wall["price"]): wall for wall in market.walls}
    texts = [market.price(price) for price, _ in (*asks, *bids)]
    sizes = [amount(size) for _, size in (*asks, *bids)]
    layout = _Layout(max(map(len, texts)), max(map(len, sizes)), width, largest)
    head = f"{'price':>{layout.price}}  {'size':>{layout.size}}"
    lines = [Text(f"  {head}", style="bold dim")]
    for price, size in reversed(asks):
        lines.append(layout.line(market, price, size, SELL, walls.get(("ask", price))))
    lines.append(_middle(market, width))
    for price, size in bids:
        lines.append(layout.line(market, price, size, BUY, walls.get(("bid", price))))
    return [fitted(line, width) for line in lines][:height]


class _Layout:
    """Widths of the columns of the ladder, and its largest size."""

    def __init__(self, price: int, size: int, width: int, largest: float) -> None:
        self.price, self.size, self.largest = price, size, largest
        self.bar = max(4, width - price - size - 6)

    def line(
        self,
        market: TableMarket,
        price: float,
        size: float,
        style: str,
        wall: Mapping[str, Any] | None,
    ) -> Text:
        colour = "bold yellow" if wall else style
        line = Text("◆ " if wall else "  ", style=colour)
        line.append(f"{market.price(price):>{self.price}}", style=colour)
        line.append(f"  {amount(size):>{self.size}}  ")
        line.append(bar(size / self.largest, self.bar), style=colour)
        if wall:
            note = f" {wall['strength']:.0f}x {wall['age_ms'] / 1000:.0f}s"
            over = line.cell_len + len(note) - (self.price + self.size + 6 + self.bar)
            if over > 0:
                line.right_crop(over)
            line.append(note, style="bold yellow reverse")
        return line


def _middle(market: TableMarket, width: int) -> Text:
    spread = number(market.book.get("spread"), market.price_digits)
    text = Text(f"── spread {spread}  imbalance ", style="dim")
    for levels, value in (market.book.get("imbalance") or {}).items():
        more = Text(f"{levels}:").append(
            number(value, 2, is_signed=True) + " ", style=BUY if (value or 0) > 0 else SELL
        )
        if text.cell_len + more.cell_len <= width:
            text.append(more)
    return text.append("─" * (width - text.cell_len))


# -- beside the ladder ----------------------------------------------------------------------------


def _side(market: TableMarket, *, width: int, height: int) -> list[Text]:
    windows = _windows(market, width)
    walls = _walls(market, width)
    if height - len(windows) < len(walls) + 5:
        walls = walls[:5]
    trades = _recent_trades(market, width, height - len(windows) - len(walls) - 2)
    return [*windows, Text(), *walls, Text(), *trades][:height]


_WINDOW_COLUMNS = (
    Column("window"),
    Column("tpm", is_right=True, min_width=5),
    Column("Δ", is_right=True, min_width=8),
    Column("buy %", is_right=True),
    Column("sell │ buy", rank=2),
    Column("vwap", is_right=True, rank=3),
    Column("volume", is_right=True, rank=4),
    Column("low", is_right=True, rank=5),
    Column("high", is_right=True, rank=5),
    Column("turnover", is_right=True, rank=6),
    Column("covered", is_right=True, rank=1),
)


def _windows(market: TableMarket, width: int) -> list[Text]:
    rows: list[Sequence[Cell]] = []
    for name, window in (market.trades.get("windows") or {}).items():
        share = window.get("buy_share")
        rows.append(
            [
                name,
                tpm_text(market, name),
                delta_text(market, name),
                NONE if share is None else f"{share:.0%}",
                balance(None if share is None else 2 * share - 1),
                number(window.get("vwap"), market.price_digits + 1),
                amount(window.get("volume")),
                market.price(window.get("low")),
                market.price(window.get("high")),
                amount(window.get("turnover")),
                _covered(market, name),
            ]
        )
    return grid(_WINDOW_COLUMNS, rows, width)


def _covered(market: TableMarket, name: str) -> Text:
    """Seconds of a window that were observed; yellow if that is not its full length."""
    seconds = market.window(name).get("coverage_s")
    if seconds is None:
        return Text(NONE)
    return Text(f"{seconds:.0f}s", style="yellow" if market.is_partial(name) else "")


_WALL_COLUMNS = (
    Column("wall"),
    Column("price", is_right=True),
    Column("size", is_right=True),
    Column("bps away", is_right=True),
    Column("x median", is_right=True, rank=1),
    Column("eaten", is_right=True, rank=3),
    Column("pulled", is_right=True, rank=3),
    Column("age", is_right=True, rank=2),
)


def _walls(market: TableMarket, width: int) -> list[Text]:
    rows: list[Sequence[Cell]] = [
        [
            Text(wall["side"], style=BUY if wall["side"] == "bid" else SELL),
            market.price(wall["price"]),
            amount(wall["size"]),
            number(wall["distance_bps"], 1),
            number(wall["strength"], 1),
            f"{wall['eaten_ratio']:.0%}",
            f"{wall['pulled_ratio']:.0%}",
            duration(wall["age_ms"] / 1000),
        ]
        for wall in market.walls
    ]
    if not rows:
        return [Text("wall", style="bold dim"), Text("none", style="dim")]
    return grid(_WALL_COLUMNS, rows, width)


def _recent_trades(market: TableMarket, width: int, height: int) -> list[Text]:
    """The last trade of each message, newest first."""
    if height < 2:
        return []
    columns = [
        Column("last trades"),
        Column("", rank=1),
        Column("price", is_right=True),
        Column("size", is_right=True),
    ]
    rows: list[Sequence[Cell]] = []
    for trade in islice(market.recent_trades, height - 1):
        style = BUY if trade.side == "Buy" else SELL
        rows.append(
            [
                Text(clock_time(trade.match_ts_ms / 1000, with_ms=True), style="dim"),
                Text(trade.side.lower(), style=style),
                Text(market.price(trade.price), style=style),
                amount(trade.size),
            ]
        )
    return grid(columns, rows, width)
