"""
What the text of a refusal means, and when to ask again. Pure.

Bybit answers a subscription that it will never grant in the same way as one that it cannot grant at
this moment: with ``"success":false`` and a text. Only "no such symbol or topic" is final; a text
that is not known to mean it is taken for a passing failure.
"""

import re

RETRY_INITIAL_S = 1.0
"""Time from the first rejection of a topic to the next request; doubles with each rejection."""
RETRY_MAX_S = 60.0

_NAMED_TOPIC = re.compile(r"topic:\s*([^\s,\]]+)|:\s*\[([^\s,\]]+)\]")
_FINAL = re.compile(
    r"handler not found"
    r"|(invalid|unknown|illegal|no such|unsupported) (symbol|topic|instrument|depth)"
    r"|(symbol|topic|instrument|depth) (is )?(invalid|unknown|not found|not exist|not supported"
    r"|does not exist|doesn't exist)",
    re.IGNORECASE,
)


def refused_topic(text: str) -> str | None:
    """
    The topic that Bybit's refusal names; None if it names none.

    Futures: ``error:handler not found,topic:orderbook.50.NOPEUSDT``; spot:
    ``Invalid symbol :[publicTrade.NOPEUSDT]``.
    """
    match = _NAMED_TOPIC.search(text)
    return (match[1] or match[2]) if match else None


def is_already_subscribed(text: str) -> bool:
    """Whether Bybit refused because the topic is subscribed already, which is no failure."""
    return "already subscribed" in text.lower()


def is_final(text: str) -> bool:
    """Whether Bybit says that there is no such symbol or topic."""
    return _FINAL.search(text) is not None


def retry_delay_s(rejections: int) -> float:
    """Return the seconds to wait after this number of rejections in a row."""
    return float(min(RETRY_MAX_S, RETRY_INITIAL_S * 2.0 ** min(rejections - 1, 16)))
