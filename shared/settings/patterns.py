"""
Symbol patterns: ``*USDT`` and ``top:50:turnover``. Pure.

Decides what a valid pattern is and which listed symbols it selects. The list of symbols is an
argument.

    *USDT                       every symbol of this form; ``*`` is any text, ``?`` one character
    top:50:turnover             the 50 symbols with the highest turnover over 24 hours
    top:50:turnover:*USDT       the same among the symbols of this form

Bybit lists options by base coin, so a pattern for options starts with one: ``BTC-*``.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bybit_pipeline.shared.bybit import CATEGORIES
from bybit_pipeline.shared.wire.messages import Category

TOP_MAX = 1000
GLOB = re.compile(r"[A-Z0-9._*?-]{1,64}")
"""Without brackets, which ``fnmatchcase`` would treat as a set of characters."""
TOP = re.compile(r"top:([1-9][0-9]{0,3}):turnover(?::([^:]+))?")
BASE_COIN = re.compile(r"([A-Z0-9]+)-")
FORMS = "a form such as *USDT (capitals, digits, * and ?), top:50:turnover or top:50:turnover:*USDT"


@dataclass(frozen=True)
class Pattern:
    """One pattern, as ``parse_pattern`` returns it."""

    text: str
    glob: str
    """``*`` if every symbol matches."""
    top: int = 0
    """Maximum number of symbols, by turnover; 0: all."""

    def fits(self, symbol: str) -> bool:
        """Return True if the symbol has the form of the pattern, whatever its turnover."""
        return fnmatchcase(symbol, self.glob)

    def base_coin(self, category: Category) -> str:
        """Return the base coin of a pattern for options; empty in other categories."""
        match = BASE_COIN.match(self.glob) if category == "option" else None
        return match[1] if match else ""


def is_pattern(text: str) -> bool:
    """Return True if the text is meant as a pattern, valid or not, rather than as one symbol."""
    return "*" in text or "?" in text or text.startswith("top:")


def with_capitals(word: str) -> str:
    """
    Return a typed symbol or pattern in capitals, as Bybit writes symbols.

    ``btcusdt``, ``spot:btcusdt``, ``*usdt`` and ``top:20:turnover:*usdt`` become ``BTCUSDT`` and so
    on. Categories and the words of ``top:N:turnover`` stay in small letters.
    """
    if word in CATEGORIES:
        return word
    parts = word.split(":")
    first = parts.index("top") + 3 if "top" in parts else len(parts) - 1
    return ":".join([*parts[:first], *map(str.upper, parts[first:])])


def parse_pattern(text: str, category: Category) -> Pattern:
    """
    Return the pattern that a text means in a category.

    Raises:
        ValueError: If the text is not a pattern; the message says what is allowed.
    """
    pattern = _parse(text)
    if category == "option" and not pattern.base_coin(category):
        raise ValueError(f"{text!r} has no base coin; use BTC-* or top:50:turnover:BTC-*")
    return pattern


def _parse(text: str) -> Pattern:
    top = TOP.fullmatch(text)
    glob = (top[2] or "*") if top else text
    if not GLOB.fullmatch(glob):
        raise ValueError(f"{text!r} is not a pattern; use {FORMS}")
    if top and int(top[1]) > TOP_MAX:
        raise ValueError(f"{text!r} asks for too many; use top:1 to top:{TOP_MAX}")
    return Pattern(text, glob, int(top[1]) if top else 0)


def chosen(pattern: Pattern, ranked: Iterable[str], had: Collection[str] = ()) -> list[str]:
    """
    Return the symbols that a pattern selects, in the order of ``ranked``.

    With ``top:N`` the current members have an advantage of ``slack(N)`` places, so that two
    neighbours in the ranking do not swap at every refresh. A member stays down to place
    N + slack, unless a symbol from a place up to N - slack needs its place.

    Args:
        pattern: The pattern.
        ranked: Every listed symbol, highest turnover first.
        had: Current members: the symbols selected at the previous refresh.
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
    """Return the advantage of the current members of ``top:N``, in places."""
    return max(1, size // 10) if size > 1 else 0
