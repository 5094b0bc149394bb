"""
The instruments of the synthetic exchange, and the text of their prices and sizes.

Decides start prices, tick and lot sizes and activity. Knows nothing of books, time or sockets.
Inside the simulator a price is a whole number of ticks and a size a whole number of lots, so that
nothing is ever rounded.

Ticks and lots are those of ``/v5/market/instruments-info`` in August 2026. Start prices are of the
same days where a capture contains them, and plausible elsewhere.

The grammar of symbols is written here again on purpose: a mistake in ``shared/bybit.py`` must not
be in the simulated exchange as well.
"""

import datetime as dt
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from bybit_pipeline.shared.wire.messages import Category

InstrumentKey = tuple[Category, str]
"""Category and symbol."""

MAX_CACHED_TEXTS = 20_000

OPTION_NAME: Final = re.compile(
    r"(?P<base>[A-Z0-9]+)-(?P<day>\d{1,2})(?P<month>[A-Z]{3})(?P<year>\d\d)"
    r"-(?P<strike>\d+(?:\.\d+)?)-(?P<kind>[CP])(?:-USDT)?"
)
INVERSE_NAME: Final = re.compile(r"[A-Z0-9]+USD(?:[FGHJKMNQUVXZ]\d\d)?")
SYMBOL_NAME: Final = re.compile(r"[A-Z0-9][A-Z0-9._/-]*")
QUOTES: Final = ("USDT", "USDC", "PERP", "USD", "EUR", "BTC", "ETH")
MONTHS: Final = (
    "JAN",
    "FEB",
    "MAR",
    "APR",
    "MAY",
    "JUN",
    "JUL",
    "AUG",
    "SEP",
    "OCT",
    "NOV",
    "DEC",
)


class DecimalStep:
    """
    A decimal step, such as a tick, that writes its multiples as the exchange does.

    The text of the step sets the number of decimals: multiples of ``0.10`` have two. Contracts keep
    trailing zeros (``65114.20``), spot and options drop them (``1922.1``).
    """

    def __init__(self, step: str, *, is_trimmed: bool) -> None:
        whole, _, fraction = step.partition(".")
        self.decimals = len(fraction)
        self.units = int(whole + fraction)
        if self.units <= 0:
            raise ValueError(f"step {step}: allowed: a number above zero")
        self.value: float = self.units / 10**self.decimals
        self.per_unit: float = 10**self.decimals / self.units
        self._is_trimmed = is_trimmed
        self._texts: dict[int, str] = {}

    def text(self, count: int) -> str:
        """Return the decimal text of ``count`` steps; zero is always ``0``."""
        text = self._texts.get(count)
        if text is None:
            if len(self._texts) >= MAX_CACHED_TEXTS:
                self._texts.clear()
            text = self._texts[count] = self._write(count)
        return text

    def count(self, value: float) -> int:
        """Return ``value`` in steps, rounded to the nearest, at least one."""
        return max(1, round(value * self.per_unit))

    def _write(self, count: int) -> str:
        if count == 0:
            return "0"
        whole, fraction = divmod(count * self.units, 10**self.decimals)
        if not self.decimals:
            return str(whole)
        text = f"{whole}.{fraction:0{self.decimals}d}"
        return text.rstrip("0").rstrip(".") if self._is_trimmed else text


class Instrument:
    """
    One listed instrument.

    Attributes:
        start_price: Price at the start, in quote currency.
        tick, lot: Steps of price and size.
        book_rate: Order book events per second at natural activity.
        trade_rate: Taker orders per second at natural activity.
        level_notional: Median value of one book level, in quote currency (contracts on inverse).
        index_price: Price of the underlying coin, in quote currency.
    """

    def __init__(
        self,
        category: Category,
        symbol: str,
        start_price: float,
        tick: str,
        lot: str,
        *,
        book_rate: float,
        trade_rate: float,
        level_notional: float,
        index_price: float | None = None,
    ) -> None:
        is_trimmed = category in ("spot", "option")
        self.category = category
        self.symbol = symbol
        self.start_price = start_price
        self.tick = DecimalStep(tick, is_trimmed=is_trimmed)
        self.lot = DecimalStep(lot, is_trimmed=is_trimmed)
        self.book_rate = book_rate
        self.trade_rate = trade_rate
        self.level_notional = level_notional
        self.index_price = start_price if index_price is None else index_price

    @property
    def key(self) -> InstrumentKey:
        """Category and symbol."""
        return (self.category, self.symbol)

    @property
    def median_lots(self) -> int:
        """Median size of one book level, in lots."""
        price = 1.0 if self.category == "inverse" else self.start_price
        return max(4, self.lot.count(self.level_notional / price))

    @property
    def base_coin(self) -> str:
        """``BTC`` of ``BTCUSDT`` and of ``BTC-30OCT26-65000-C``."""
        return base_coin(self.symbol)


def daily_turnover(instrument: Instrument) -> float:
    """
    Return a plausible turnover of 24 hours, in quote currency (contracts on inverse).

    It is the turnover of the takers at natural activity, times a factor derived from the name, so
    that no two instruments have the same.
    """
    digest = hashlib.sha256(f"turnover {instrument.symbol}".encode()).digest()
    factor = 0.5 + int.from_bytes(digest[:4], "big") / 2**32
    return 86_400 * instrument.trade_rate * instrument.level_notional * factor


def base_coin(symbol: str) -> str:
    """Return the base coin of a symbol, as far as its name tells."""
    if "-" in symbol:
        symbol = symbol.partition("-")[0]
    for quote in QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol.removesuffix(quote)
    return symbol


# Activity: book events and taker orders per second, and the median value of a level.
MAJOR = (48.0, 4.0, 30_000.0)
BUSY = (22.0, 1.2, 12_000.0)
MIDDLE = (8.0, 0.35, 5_000.0)
QUIET = (1.5, 0.06, 2_000.0)
SILENT = (0.1, 0.01, 800.0)

Row = tuple[str, float, str, str, tuple[float, float, float]]

LINEAR: Final[tuple[Row, ...]] = (
    ("BTCUSDT", 65114.20, "0.10", "0.001", MAJOR),
    ("ETHUSDT", 1923.20, "0.01", "0.01", MAJOR),
    ("SOLUSDT", 77.310, "0.010", "0.1", BUSY),
    ("XRPUSDT", 1.0350, "0.0001", "0.1", BUSY),
    ("DOGEUSDT", 0.07152, "0.00001", "1", BUSY),
    ("BNBUSDT", 604.30, "0.10", "0.01", BUSY),
    ("ADAUSDT", 0.2581, "0.0001", "1", MIDDLE),
    ("LINKUSDT", 8.412, "0.001", "0.1", MIDDLE),
    ("AVAXUSDT", 6.915, "0.001", "0.1", MIDDLE),
    ("SUIUSDT", 0.80140, "0.00010", "10", MIDDLE),
    ("TRXUSDT", 0.33410, "0.00001", "1", MIDDLE),
    ("DOTUSDT", 0.9123, "0.0001", "0.1", MIDDLE),
    ("LTCUSDT", 47.31, "0.01", "0.1", MIDDLE),
    ("BCHUSDT", 311.20, "0.10", "0.01", MIDDLE),
    ("NEARUSDT", 1.4125, "0.0001", "0.1", MIDDLE),
    ("APTUSDT", 0.9034, "0.0001", "0.01", MIDDLE),
    ("ARBUSDT", 0.10215, "0.00001", "0.1", MIDDLE),
    ("OPUSDT", 0.14320, "0.00001", "0.1", MIDDLE),
    ("UNIUSDT", 3.421, "0.001", "0.1", MIDDLE),
    ("AAVEUSDT", 88.15, "0.01", "0.01", MIDDLE),
    ("1000PEPEUSDT", 0.0035140, "0.0000010", "100", MIDDLE),
    ("ATOMUSDT", 1.8120, "0.0001", "0.1", QUIET),
    ("FILUSDT", 0.8850, "0.0001", "0.1", QUIET),
    ("ETCUSDT", 8.024, "0.001", "0.1", QUIET),
    ("XLMUSDT", 0.16120, "0.00001", "1", QUIET),
    ("HBARUSDT", 0.08011, "0.00001", "1", QUIET),
    ("INJUSDT", 3.1250, "0.0010", "0.1", QUIET),
    ("SEIUSDT", 0.06120, "0.00001", "1", QUIET),
    ("TIAUSDT", 0.3541, "0.0001", "0.1", QUIET),
    ("GALAUSDT", 0.003512, "0.000001", "1", QUIET),
    ("BANDUSDT", 0.2131, "0.0001", "0.1", SILENT),
    ("AIOZUSDT", 0.06533, "0.00001", "1", SILENT),
    ("SNTUSDT", 0.008680, "0.000001", "10", SILENT),
)

SPOT: Final[tuple[Row, ...]] = (
    ("BTCUSDT", 65130.5, "0.1", "0.000001", MAJOR),
    ("ETHUSDT", 1923.27, "0.01", "0.00001", MAJOR),
    ("SOLUSDT", 77.33, "0.01", "0.0001", BUSY),
    ("XRPUSDT", 1.0352, "0.0001", "0.01", BUSY),
    ("DOGEUSDT", 0.07153, "0.00001", "0.1", MIDDLE),
    ("BNBUSDT", 604.5, "0.1", "0.0001", MIDDLE),
    ("ADAUSDT", 0.2582, "0.0001", "0.01", MIDDLE),
    ("LINKUSDT", 8.414, "0.001", "0.001", MIDDLE),
    ("AVAXUSDT", 6.917, "0.001", "0.001", MIDDLE),
    ("SUIUSDT", 0.8015, "0.0001", "0.01", MIDDLE),
    ("TRXUSDT", 0.3342, "0.0001", "0.01", MIDDLE),
    ("DOTUSDT", 0.9125, "0.0001", "0.001", MIDDLE),
    ("LTCUSDT", 47.32, "0.01", "0.00001", MIDDLE),
    ("BCHUSDT", 311.3, "0.1", "0.0001", QUIET),
    ("NEARUSDT", 1.413, "0.001", "0.01", QUIET),
    ("APTUSDT", 0.9036, "0.0001", "0.01", QUIET),
    ("ARBUSDT", 0.10216, "0.00001", "0.01", QUIET),
    ("OPUSDT", 0.1433, "0.0001", "0.01", QUIET),
    ("UNIUSDT", 3.422, "0.001", "0.01", QUIET),
    ("AAVEUSDT", 88.17, "0.01", "0.0001", QUIET),
    ("PEPEUSDT", 0.000003515, "0.000000001", "1", QUIET),
    ("SHIBUSDT", 0.000005121, "0.000000001", "1", QUIET),
    ("ATOMUSDT", 1.812, "0.001", "0.01", QUIET),
    ("FILUSDT", 0.8852, "0.0001", "0.01", QUIET),
    ("ETCUSDT", 8.026, "0.001", "0.001", QUIET),
    ("XLMUSDT", 0.1613, "0.0001", "0.1", QUIET),
    ("HBARUSDT", 0.08012, "0.00001", "0.1", QUIET),
    ("MNTUSDT", 0.6114, "0.0001", "0.01", QUIET),
    ("BTCUSDC", 65121.4, "0.1", "0.000001", MIDDLE),
    ("ETHUSDC", 1922.91, "0.01", "0.00001", MIDDLE),
    ("GALAUSDT", 0.003513, "0.000001", "0.1", SILENT),
    ("AIOZUSDT", 0.06534, "0.00001", "0.01", SILENT),
)

INVERSE: Final[tuple[Row, ...]] = (
    ("BTCUSD", 65120.00, "0.10", "1", BUSY),
    ("ETHUSD", 1923.35, "0.01", "1", BUSY),
    ("XRPUSD", 1.0351, "0.0001", "1", MIDDLE),
    ("SOLUSD", 77.320, "0.010", "1", MIDDLE),
    ("LTCUSD", 47.33, "0.01", "1", QUIET),
)

OPTION_BASES: Final = (("BTC", 65114.2, 1000, "5", "0.01"), ("ETH", 1923.2, 50, "0.1", "0.1"))
OPTION_VOLATILITY = 0.5
"""Annual volatility for option prices, and the ``iv`` of option trades."""
OPTION_ACTIVITY = (2.0, 0.05, 4_000.0)


def default_instruments(category: Category, today: dt.date) -> list[Instrument]:
    """Return the default instruments of a category; option contracts expire after ``today``."""
    if category == "option":
        return list(_option_contracts(today))
    rows = {"linear": LINEAR, "spot": SPOT, "inverse": INVERSE}[category]
    return [_instrument(category, *row) for row in rows]


def instrument_named(category: Category, symbol: str, today: dt.date) -> Instrument:
    """
    Return a default instrument, or make one for any other symbol.

    Its price is that of a default instrument on the same coin, or derived from a hash of the name,
    so that it is the same in every run.

    Raises:
        ValueError: If the category cannot have such a symbol.
    """
    for instrument in default_instruments(category, today):
        if instrument.symbol == symbol:
            return instrument
    if not SYMBOL_NAME.fullmatch(symbol):
        raise ValueError(
            f"{symbol!r} is not a symbol; allowed: capital letters, digits and - . _ /"
        )
    if category == "option":
        return _option_named(symbol, today)
    if OPTION_NAME.fullmatch(symbol):
        raise ValueError(f"{symbol} is an option contract and not {category}")
    coins = {base_coin(row[0]): row[1] for row in (*SPOT, *LINEAR, *INVERSE)}
    price = coins.get(base_coin(symbol)) or _hashed_price(symbol)
    magnitude = math.floor(math.log10(price))
    tick = _power_of_ten(magnitude - 4)
    lot = "1" if category == "inverse" else _power_of_ten(1 - max(0, magnitude))
    return _instrument(category, symbol, price, tick, lot, MIDDLE)


def make_instruments(
    symbols: Mapping[Category, Iterable[str]], *, with_defaults: bool, today: dt.date
) -> list[Instrument]:
    """
    Return the named instruments, and on request the default ones as well.

    Raises:
        ValueError: If a category cannot have a symbol.
    """
    instruments: dict[InstrumentKey, Instrument] = {}
    categories: tuple[Category, ...] = ("spot", "linear", "inverse", "option")
    for category in categories:
        if with_defaults:
            for instrument in default_instruments(category, today):
                instruments[instrument.key] = instrument
        for symbol in symbols.get(category, ()):
            if (category, symbol) not in instruments:
                instruments[category, symbol] = instrument_named(category, symbol, today)
    return list(instruments.values())


def categories_of(symbol: str) -> tuple[Category, ...]:
    """Return the categories that a symbol without a category may belong to, by its form."""
    if OPTION_NAME.fullmatch(symbol):
        return ("option",)
    if INVERSE_NAME.fullmatch(symbol):
        return ("inverse",)
    return ("linear",) if "-" in symbol else ("spot", "linear")


def _instrument(
    category: Category,
    symbol: str,
    price: float,
    tick: str,
    lot: str,
    activity: tuple[float, float, float],
    index_price: float | None = None,
) -> Instrument:
    book_rate, trade_rate, level_notional = activity
    return Instrument(
        category,
        symbol,
        price,
        tick,
        lot,
        book_rate=book_rate,
        trade_rate=trade_rate,
        level_notional=level_notional,
        index_price=index_price,
    )


def _power_of_ten(exponent: int) -> str:
    return f"{10.0**exponent:.{max(0, -exponent)}f}"


def _hashed_price(symbol: str) -> float:
    digest = hashlib.sha256(symbol.encode()).digest()
    return float(10.0 ** (-2 + 4 * digest[0] / 255) * (1 + digest[1] / 256))


def _option_contracts(today: dt.date) -> Iterable[Instrument]:
    """Return seven strikes around the start price, for the next two Fridays and five weeks on."""
    friday = today + dt.timedelta(days=(4 - today.weekday()) % 7 or 7)
    expiries = [friday, friday + dt.timedelta(weeks=1), friday + dt.timedelta(weeks=5)]
    for base, price, step, _, _ in OPTION_BASES:
        middle = round(price / step) * step
        for expiry in expiries:
            day = f"{expiry.day}{MONTHS[expiry.month - 1]}{expiry:%y}"
            for strike in range(middle - 3 * step, middle + 4 * step, step):
                for kind in "CP":
                    yield _option_named(f"{base}-{day}-{strike}-{kind}-USDT", today)


def _option_named(symbol: str, today: dt.date) -> Instrument:
    allowed = "BTC-30OCT26-65000-C-USDT"
    match = OPTION_NAME.fullmatch(symbol)
    if match is None or match["month"] not in MONTHS:
        raise ValueError(f"{symbol!r} is not an option contract such as {allowed}")
    try:
        month = MONTHS.index(match["month"]) + 1
        expiry = dt.date(2000 + int(match["year"]), month, int(match["day"]))
    except ValueError as error:
        raise ValueError(f"{symbol!r} names a day that does not exist") from error
    strike = float(match["strike"])
    if strike <= 0:
        raise ValueError(f"{symbol}: the strike must be above zero")
    known = {base: (price, tick, lot) for base, price, _, tick, lot in OPTION_BASES}
    spot, tick, lot = known.get(match["base"], (strike, _power_of_ten(-2), "1"))
    years = max(1, (expiry - today).days) / 365
    price = option_price(spot, strike, years, is_call=match["kind"] == "C")
    price = max(price, 20 * float(tick))
    return _instrument("option", symbol, price, tick, lot, OPTION_ACTIVITY, spot)


def option_price(spot: float, strike: float, years: float, *, is_call: bool) -> float:
    """Return the price by Black and Scholes (1973), without interest, in quote currency."""
    deviation = OPTION_VOLATILITY * math.sqrt(years)
    d1 = math.log(spot / strike) / deviation + deviation / 2
    call = spot * _normal(d1) - strike * _normal(d1 - deviation)
    return call if is_call else call - spot + strike


def _normal(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))
