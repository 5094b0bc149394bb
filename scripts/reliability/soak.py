"""
The soak: minutes to hours of load with a fault every few seconds, and a balance of all messages.

``scripts/soak --minutes 30``. A simulated exchange, a fault proxy and a pipeline run as real
processes; this process is the subscriber. Requirements:

- No wrong number. The books of some symbols are compared with those of the exchange; all other
  books must be uncrossed, and empty while they are not live.
- No silent loss. Messages sent by the exchange = messages taken by the connectors + messages lost
  with connections. Messages taken = messages handled by every worker + messages it counted as lost.
- No old number. A message that says live has data of the last two seconds, or a connection that was
  heard from since; every topic is published once per second while its worker runs.
- Neither memory nor file descriptors grow after the first five minutes.
"""

import argparse
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from scripts.freshness.messages import FreshnessCheck
from scripts.reliability.rig import Rig
from tests.system.pipeline import until

CONFIG = """
[connector]
topics_per_socket = 100
ping_interval_s = 2.0
pong_timeout_s = 6.0
silence_timeout_s = 10.0
ack_timeout_s = 6.0
backoff_initial_s = 0.2
backoff_max_s = 1.0
[orderbook]
publish_interval_ms = 250
[workers]
trades = 1
orderbook = 2
"""
FOLLOWED = 10
"""Symbols whose books are compared with those of the exchange."""
PAUSE_S = (3.0, 8.0)
FAULTS = ("reset", "hang_up", "cut", "close", "freeze", "drop", "garbage", "stop_worker")
CHECK_S = 1.0
RESUMED_S = 1.0
"""Time for a worker that was stopped to publish again."""
DAMAGED_SHARE = 1 / 3_000
"""Share of book messages that the proxy drops or damages."""
GRACE_S = 300.0
"""Time after the start in which memory may grow, because windows of 5 minutes fill up."""
NOISE_RATIO, NOISE_MB = 0.1, 5.0
"""
Growth allowed between the end of the grace and the end of the run. Evicted trades are freed a
sixteenth of the window later, the size of books varies with the market, and the allocator keeps its
peak. A leak at this load exceeds this within minutes.
"""


class Soak:
    """One run."""

    def __init__(self, directory: Path, *, symbols: int, rate: int, seed: int) -> None:
        names = [f"T{number:03}USDT" for number in range(symbols)]
        self.rig = Rig(
            directory,
            symbols=",".join(names),
            rate=rate,
            config=CONFIG,
            followed=set(names[:: max(1, symbols // FOLLOWED)]),
        )
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.memory: dict[float, dict[str, float]] = {}
        self.descriptors: dict[float, dict[str, int]] = {}
        self.missed = 0
        """Metrics that the subscriber missed, by gaps in ``seq``."""
        self.damaged: Counter[str] = Counter()
        self.inserted = 0
        """Invalid frames inserted between those of the exchange."""
        self.freshness = FreshnessCheck()
        self._last: dict[tuple[str, str], int] = {}
        self.rig.on_metric = self._on_metric
        self._damage_random = random.Random(seed)
        self._began = time.monotonic()

    def close(self) -> None:
        """End everything."""
        self.rig.close()

    # -- the run ---------------------------------------------------------------------------------

    def run(self, minutes: float, *, marks: tuple[float, ...]) -> None:
        """Inject faults for ``minutes``; measure memory at ``marks``, in minutes."""
        self.rig.until_live(180)
        self.rig.replace = self._replace
        self._began = began = time.monotonic()
        next_fault = began + 3.0
        next_check = began
        left = [mark for mark in marks if mark <= minutes]
        while (now := time.monotonic()) < began + minutes * 60:
            self.rig.listen()
            if left and now >= began + left[0] * 60:
                self.measure(left.pop(0))
            if now >= next_check:
                next_check = now + CHECK_S
                self.freshness.check()
            if now >= next_fault:
                next_fault = now + self.chance.uniform(*PAUSE_S)
                self._inject(self.chance.choice(FAULTS))
            self.rig.pipeline.socket.poll(100)

    def _on_metric(self, message: dict[str, Any]) -> None:
        """Judge the freshness of a metric, and count those that the subscriber has missed."""
        self.freshness.take(message["topic"], message)
        if message["kind"] in ("trades", "orderbook"):
            key = (message["topic"], message["epoch"])
            before = self._last.get(key, message["seq"] - 1)
            self.missed += max(0, message["seq"] - before - 1)
            self._last[key] = message["seq"]

    def _replace(self, payload: bytes) -> Sequence[bytes] | None:
        """Drop or damage some book messages, in the proxy's thread."""
        if self._damage_random.random() > DAMAGED_SHARE or b'"orderbook.' not in payload[:24]:
            return None
        how = self._damage_random.choice(("drop", "truncate", "price", "size"))
        self.damaged[how] += 1
        match how:
            case "drop":
                return []
            case "truncate":
                return [payload[: len(payload) // 2 + 20]]
            case "price":
                damaged = payload.replace(b'"b":[', b'"b":[["12x.5","1"],', 1)
            case _:
                damaged = payload.replace(b'"a":[', b'"a":[["12.5","-1"],', 1)
        return [damaged.replace(b",]", b"]", 1)]

    def _inject(self, fault: str) -> None:
        self.faults[fault] += 1
        proxy = self.rig.proxy
        match fault:
            case "reset" | "hang_up" | "cut" | "freeze":
                getattr(proxy, fault)()
            case "close":
                proxy.close_with(self.chance.choice((1000, 1001, 1011, 1012)))
            case "garbage":
                self.inserted += 3 * proxy.insert(b"\x81\x05{nope\x82\x01x\x81\x02[]")
            case "drop":
                self._drop_for(0.05)
            case "stop_worker":
                self._stop_worker(2.0)

    def _drop_for(self, seconds: float) -> None:
        """Drop all book messages for a while."""
        proxy = self.rig.proxy
        proxy.drops = lambda payload: b'"orderbook.' in payload[:24]
        time.sleep(seconds)
        proxy.drops = None

    def _stop_worker(self, seconds: float) -> None:
        """Suspend a worker for a while, so that it falls behind the market."""
        name = self.chance.choice(("trades-0", "orderbook-0", "orderbook-1"))
        pid = self.rig.pipeline.pid(name)
        os.kill(pid, signal.SIGSTOP)
        self.freshness.excuse(name, time.time() + seconds + RESUMED_S)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.rig.listen()
            self.rig.pipeline.socket.poll(50)
        os.kill(pid, signal.SIGCONT)

    def measure(self, minute: float) -> None:
        """Record and print the memory and descriptors of every process."""
        entries = self.rig.pipeline.status()["processes"]
        processes = {entry["process"]: psutil.Process(entry["pid"]) for entry in entries}
        self.memory[minute] = {n: p.memory_info().rss / 1e6 for n, p in processes.items()}
        self.descriptors[minute] = {name: p.num_fds() for name, p in processes.items()}
        shown = ", ".join(f"{n} {mb:.0f}" for n, mb in self.memory[minute].items())
        print(f"after {minute:g} min, MB: {shown}", flush=True)

    # -- the balance ------------------------------------------------------------------------------

    def balance(self) -> dict[str, int]:
        """Suspend the exchange, wait until everything has arrived, and return all counts."""
        pipeline, proxy = self.rig.pipeline, self.rig.proxy
        connectors = [n for n in pipeline.endpoints()["prometheus"] if n.startswith("connector")]
        self.rig.replace = None
        with contextlib.suppress(AssertionError):
            self.rig.until_live(30)
        self.rig.exchange.process.send_signal(signal.SIGSTOP)
        history: list[dict[str, int]] = [{}, {"": 0}]

        def is_quiet() -> bool:
            self.rig.listen()
            history.append(self._counted(connectors))
            return history[-1] == history[-8:][0] and len(history) > 10

        until(is_quiet, "all messages have arrived", 30)
        counted = history[-1]
        counted["sent by the exchange"] = sum(proxy.sent.values())
        return counted

    def _counted(self, connectors: list[str]) -> dict[str, int]:
        pipeline = self.rig.pipeline
        found: Counter[str] = Counter()
        for name in connectors:
            for word in ("messages", "frames_invalid", "frames_late"):
                found[f"connectors: {word}"] += int(pipeline.total(name, f"connector_{word}_total"))
        for name in ("trades-0", "orderbook-0", "orderbook-1"):
            role = name.split("-")[0]
            stream = "trade" if role == "trades" else "book"
            found[f"{role}: handled"] += int(
                pipeline.total(name, "worker_messages_total", f'stream="{stream}"')
            )
            found[f"{role}: lost"] += int(pipeline.total(name, "bus_messages_lost_total"))
        for name in connectors:
            for stream in ("trade", "book"):
                found[f"connectors: {stream}"] += int(
                    pipeline.total(name, "connector_messages_total", f'stream="{stream}"')
                )
        return dict(found)


def main() -> int:
    """Run and print the figures; return 1 if a requirement was not met."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Run a load with a fault every few seconds, and balance all messages.",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="duration")
    parser.add_argument("--symbols", type=int, default=200, help="number of symbols")
    parser.add_argument("--rate", type=int, default=5_000, help="messages per second")
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    options = parser.parse_args()
    marks = tuple(m for m in (1.0, 5.0, 10.0, 15.0, 30.0, 60.0) if m < options.minutes)
    with TemporaryDirectory() as directory:
        soak = Soak(Path(directory), symbols=options.symbols, rate=options.rate, seed=options.seed)
        try:
            soak.run(options.minutes, marks=marks)
            soak.measure(options.minutes)
            counted = soak.balance()
            return report(soak, counted, options.minutes)
        finally:
            soak.close()


def report(soak: Soak, counted: dict[str, int], minutes: float) -> int:
    """Print the figures; return 1 if a requirement was not met."""
    rig, bad = soak.rig, []
    sent = counted["sent by the exchange"]
    counted["inserted by the proxy"] = soak.inserted
    taken = -soak.inserted + sum(
        counted[f"connectors: {w}"] for w in ("messages", "frames_invalid", "frames_late")
    )
    print(f"faults                     {sum(soak.faults.values())} {dict(soak.faults)}")
    print(f"messages damaged           {sum(soak.damaged.values())} {dict(soak.damaged)}")
    print(f"messages per second        {sent / (minutes * 60):.0f}")
    print(f"sent by the exchange       {sent}")
    for name, number in sorted(counted.items()):
        print(f"  {name:<32} {number}")
    broken = sent - taken
    print(f"lost with connections      {broken} in {rig.proxy.broken} broken connections")
    trades = counted["connectors: trade"] - counted["trades: handled"] - counted["trades: lost"]
    print(f"trades unaccounted for     {trades}")
    books = counted["connectors: book"] - counted["orderbook: handled"]
    books_lost = counted["orderbook: lost"]
    print(f"books not handled          {books}, counted as lost (with trades) {books_lost}")
    print(f"metrics judged             {rig.oracle.metrics}")
    print(f"live books compared        {rig.oracle.checked}")
    print(f"wrong numbers              {len(rig.oracle.wrong)} {rig.oracle.wrong[:5]}")
    fresh = soak.freshness
    print(f"freshness judged           {fresh.judged} messages")
    print(f"oldest data said live      {fresh.oldest_s:.2f} s without a sign of life")
    print(f"longest pause of a topic   {fresh.longest_s:.2f} s")
    print(f"frozen or not published    {len(fresh.wrong)} {fresh.wrong[:5]}")
    total = rig.pipeline.total
    names = list(rig.pipeline.endpoints()["prometheus"])
    outages = sum(total(name, "frozen_seconds_count") for name in names)
    frozen_s = sum(total(name, "frozen_seconds_sum") for name in names)
    print(f"frozen_seconds             {outages:.0f} outages, {frozen_s:.1f} s in total")
    restarts = {e["process"]: e["restarts"] for e in rig.pipeline.status()["processes"]}
    print(f"restarts                   {sum(restarts.values())} {restarts}")
    print(f"metrics the subscriber missed {soak.missed}")
    if rig.oracle.wrong:
        bad.append("wrong numbers")
    if fresh.wrong:
        bad.append("old numbers said to be live")
    if trades or books > books_lost or books < 0:
        bad.append("messages lost silently")
    bad += growth(soak)
    print(f"verdict                    {'; '.join(bad) or 'good'}")
    return 1 if bad else 0


def growth(soak: Soak) -> list[str]:
    """Return the processes whose memory or descriptors have grown since the grace."""
    marks = sorted(soak.memory)
    settled = [mark for mark in marks if mark * 60 >= GRACE_S]
    if len(settled) < 2:
        return []
    first, last = settled[0], settled[-1]
    found = []
    for name, before in soak.memory[first].items():
        after = soak.memory[last].get(name, 0.0)
        files = soak.descriptors[last].get(name, 0) - soak.descriptors[first][name]
        print(f"  {name:<20} {before:6.1f} MB -> {after:6.1f} MB, descriptors {files:+d}")
        if after > before * (1 + NOISE_RATIO) + NOISE_MB:
            found.append(f"{name} grew from {before:.0f} to {after:.0f} MB")
        if files > 3:
            found.append(f"{name} has {files} more descriptors")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
