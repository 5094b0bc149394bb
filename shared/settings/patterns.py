"""
Patterns for symbols: ``*USDT`` and ``top:50:turnover``. Pure.

Decides what a pattern is and which of the listed symbols it stands for; knows nothing of where
lists come from.

    *USDT                       every symbol of that form; ``*`` is any text, ``?`` one character
    top:50:turnover             the 50 symbols with the highest turnover of 24 hours
    top:50:turnover:*USDT       the same among the symbols of that form

Options are listed by base coin, so their patterns begin with one: ``BTC-*``.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bybit_pipeline.shared.bybit import CATEGORIES
from bybit_pipeline.shared.wire.messages import Category

TOP_MAX = 1000
GLOB = re.compile(r"[A-Z0-9._*?-]{1,64}")
TOP = re.compile(r"top:([1-9][0-9]{0,3}):turnover(?::([^:]+))?")
BASE_COIN = re.compile(r"([A-Z0-9]+)-")
FORMS = (
    "capitals and digits with * or ?, such as *USDT, or top:50:turnover, or top:50:turnover:*USDT"
)


@dataclass(frozen=True)
class Pattern:
    """One pattern; ``parse_pattern`` makes it."""

    text: str
    glob: str
    """``*`` if every symbol fits."""
    top: int = 0
    """How many of them at most, by turnover; 0: all."""

    def fits(self, symbol: str) -> bool:
        """True if the symbol has the form of the pattern, whatever its turnover."""
        return _fits(self.glob, symbol)

    def base_coin(self, category: Category) -> str:
        """The base coin whose list is asked for: of options only, else empty."""
        match = BASE_COIN.match(self.glob) if category == "option" else None
        return match[1] if match else ""


def is_pattern(text: str) -> bool:
    """True if the text is meant as a pattern, right or wrong, and not as one symbol."""
    return "*" in text or "?" in text or text.startswith("top:")


def with_capitals(word: str) -> str:
    """
    A symbol or pattern as the exchange writes it, from one that a person typed.

    ``btcusdt``, ``spot:btcusdt``, ``*usdt`` and ``top:20:turnover:*usdt`` become ``BTCUSDT`` and so
    on; categories and the words of a ``top`` stay. Bybit lists no symbol with small letters.
    """
    if word in CATEGORIES:
        return word
    parts = word.split(":")
    first = parts.index("top") + 3 if "top" in parts else len(parts) - 1
    return ":".join([*parts[:first], *map(str.upper, parts[first:])])


def parse_pattern(text: str, category: Category) -> Pattern:
    """
    The pattern that a text means in a category.

    Raises:
        ValueError: If it is none; says what is allowed.
    """
    pattern = _parse(text)
    if category == "option" and not pattern.base_coin(category):
        raise ValueError(f"{text!r} names no base coin; allowed: BTC-*, top:50:turnover:BTC-*")
    return pattern


def _parse(text: str) -> Pattern:
    top = TOP.fullmatch(text)
    glob = (top[2] or "*") if top else text
    if not GLOB.fullmatch(glob):
        raise ValueError(f"{text!r} is not a pattern; allowed: {FORMS}")
    if top and int(top[1]) > TOP_MAX:
        raise ValueError(f"{text!r}; allowed: top:1 to top:{TOP_MAX}")
    return Pattern(text, glob, int(top[1]) if top else 0)


def chosen(pattern: Pattern, ranked: Iterable[str], had: Collection[str] = ()) -> list[str]:
    """
    The symbols that a pattern stands for, as they are ranked.

    Of a ``top:N`` those that are in already have an advantage of ``slack(N)`` places, so that two
    neighbours do not change places with every look: they stay down to place N + slack as long as
    nobody from a place up to N - slack needs theirs.

    Args:
        pattern: The pattern.
        ranked: Every listed symbol, the highest turnover first.
        had: What the pattern stood for until now.
    """
    fitting = [symbol for symbol in ranked if pattern.fits(symbol)]
    if not pattern.top:
        return fitting
    size, places, old = pattern.top, slack(pattern.top), set(had)
    sure = [symbol for symbol in fitting[: max(0, size - places)] if symbol not in old]
    stay = [symbol for symbol in fitting[: size + places] if symbol in old][: size - len(sure)]
    first = dict.fromkeys([*sure, *stay, *fitting[:size]])
    taken = set(list(first)[:size])
    return [symbol for symbol in fitting if symbol in taken]


def slack(size: int) -> int:
    """The advantage of symbols that are in a ``top:N`` already, in places."""
    return max(1, size // 10) if size > 1 else 0


def _fits(glob: str, text: str) -> bool:
    """Whether a text has a form, in time that grows with the product of both lengths at most."""
    at = in_glob = 0
    star, retry = -1, 0
    while at < len(text):
        if in_glob < len(glob) and glob[in_glob] == "*":
            star, retry = in_glob, at
            in_glob += 1
        elif in_glob < len(glob) and glob[in_glob] in ("?", text[at]):
            at, in_glob = at + 1, in_glob + 1
        elif star >= 0:
            retry += 1
            at, in_glob = retry, star + 1
        else:
            return False
    return not glob[in_glob:].strip("*")
