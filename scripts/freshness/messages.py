"""
Freshness of every message of the metrics socket, judged by the message alone. Reads no clock.

- A message that says live was published at most ``OLD_S`` after its data, or after the last sign of
  life of its connection (``alive_ts_ns``).
- Every topic is published at least every ``EVERY_S`` seconds, while its worker runs.

Time is the ``publish_ts_ns`` of the messages: a reader that falls behind changes no judgement.
"""

from collections.abc import Mapping
from typing import Any, Final

KINDS: Final = ("trades", "orderbook")
LIVE: Final = ("live", "warming")
OLD_S: Final = 2.0
EVERY_S: Final = 1.0
LATE_S: Final = 0.5
"""Tolerance for a machine that is busy."""


class FreshnessCheck:
    """
    Give ``take`` every message.

    Attributes:
        judged: Number of messages judged.
        wrong: Descriptions of violations.
        oldest_s: Greatest age of live data without a sign of life.
        longest_s: Longest pause of a topic.
    """

    def __init__(self) -> None:
        self.judged = 0
        self.wrong: list[str] = []
        self.oldest_s = 0.0
        self.longest_s = 0.0
        self._published: dict[str, float] = {}
        self._workers: dict[str, str] = {}
        self._excused: dict[str, float] = {}

    def take(self, topic: str, message: Mapping[str, Any]) -> None:
        """Judge a message."""
        if message["kind"] not in KINDS:
            return
        self.judged += 1
        now = message["publish_ts_ns"] / 1e9
        if message["state"] in LIVE:
            self._judge_age(topic, message, now)
        self._judge_pause(topic, now)
        self._published[topic] = now
        self._workers[topic] = message["process"]

    def excuse(self, worker: str, until_s: float) -> None:
        """Count pauses of the topics of a worker from this time on; until then it is stopped."""
        self._excused[worker] = until_s

    def check(self) -> None:
        """Judge the topics that are not published any more; call it about once per second."""
        newest = max(self._published.values(), default=0.0)
        for topic in list(self._published):
            self._judge_pause(topic, newest)

    def forget(self, topic: str) -> None:
        """Expect no more messages of a topic."""
        self._published.pop(topic, None)

    def _judge_age(self, topic: str, message: Mapping[str, Any], now: float) -> None:
        times = (message["recv_ts_ns"], message.get("alive_ts_ns"))
        heard = [time / 1e9 for time in times if time is not None]
        if not heard:
            self.wrong.append(f"{topic} {message['state']} without data or a sign of life")
            return
        age_s = now - max(heard)
        self.oldest_s = max(self.oldest_s, age_s)
        if age_s > OLD_S:
            self.wrong.append(f"{topic} {message['state']} {age_s:.2f} s after its data")

    def _judge_pause(self, topic: str, now: float) -> None:
        if topic not in self._published:
            return
        excused = self._excused.get(self._workers[topic], 0.0)
        pause_s = now - max(self._published[topic], excused)
        self.longest_s = max(self.longest_s, pause_s)
        if pause_s > EVERY_S + LATE_S:
            self.wrong.append(f"{topic} not published for {pause_s:.2f} s")
            self.forget(topic)  # once is enough
