"""
A child of the pipeline that does nothing but what its behaviour says; run as a process.

``BEHAVIOUR`` in the environment is a JSON map from process name to a map of:

    exit            exit code to end with, right after the start
    exit_times      how many runs do that before one does not (default: all)
    never_ready     seconds to sleep instead of starting
    ignore_sigterm  true: SIGTERM does nothing
    status          what heartbeats say, over the defaults
    resync          topic to ask a resync for, once
    websocket       address to announce as the simulator's

Every command that it gets is shown in its status as ``commands``.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shared import logs
from shared.actor import Actor
from shared.config import make_config
from shared.specs import ProcessSpec

NAME_OF = {"forwarder": "metrics"}


class FakeChild(Actor):
    """Announce itself, beat, collect commands."""

    def __init__(self, spec: ProcessSpec, raw: Mapping[str, Any], does: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.raw = raw
        self.does = does
        self.commands: list[dict[str, Any]] = []

    def on_start(self) -> None:
        """Announce what the real one would."""
        if self.raw["role"] == "forwarder":
            self.endpoints["metrics"] = self.raw["endpoint"].replace(":0", ":5999")
        if self.raw["role"] == "simulator":
            self.endpoints["websocket"] = self.does.get("websocket", "ws://127.0.0.1:1/{category}")
        if "resync" in self.does:
            self.every(0.1, self.ask_once)

    def ask_once(self) -> None:
        """Ask for a resync, once."""
        self._timers.pop()
        self.send_control("resync", topic=self.does["resync"], reason="gap")

    def on_command(self, command: dict[str, Any]) -> None:
        """Remember it, and say so at once."""
        self.commands.append(command)
        self._heartbeat()

    def status(self) -> Mapping[str, Any]:
        """What a healthy process of the role says."""
        said: dict[str, Any] = {"commands": self.commands}
        streams = self.raw.get("streams")
        if streams is not None:
            names = [
                f"orderbook.{s['depth']}.{s['symbol']}" if s["kind"] == "book"
                else f"publicTrade.{s['symbol']}" for s in streams
            ]  # fmt: skip
            said |= {"connected": True, "url": self.raw["url"], "last_message_ts_ms": None,
                     "topics": dict.fromkeys(names, "delivering")}  # fmt: skip
        if self.raw["role"] == "orderbook":
            said["books"] = {"live": len(self.raw["assignments"])}
        return {**said, **self.does.get("status", {})}


def main() -> int:
    """Behave."""
    path = Path(sys.argv[1])
    raw = json.loads(path.read_text())
    spec = msgspec.convert({key: raw[key] for key in ProcessSpec.__struct_fields__}, ProcessSpec)
    does = json.loads(os.environ.get("BEHAVIOUR", "{}")).get(spec.process, {})
    if "exit" in does and is_due(path, does):
        return int(does["exit"])
    time.sleep(does.get("never_ready", 0))
    logs.configure(spec.process)
    child = FakeChild(spec, raw, does)
    if does.get("ignore_sigterm"):
        child._on_signal = lambda *_: None  # type: ignore[method-assign]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return child.run(int(sys.argv[3]))


def is_due(path: Path, does: Mapping[str, Any]) -> bool:
    """True in the first ``exit_times`` runs, counted in a file beside the run directory."""
    counter = path.parent.parent / f"{path.stem}.runs"
    runs = len(counter.read_bytes()) if counter.exists() else 0
    counter.write_bytes(b"x" * (runs + 1))
    return runs < int(does.get("exit_times", 1_000_000))


def supervise() -> int:
    """``RUN_DIR TABLES TIMES``: run a supervisor whose children are all fakes."""
    from shared.errors import PipelineError
    from supervisor import keeper
    from supervisor.plan import make_plan
    from supervisor.rundir import RunDir
    from supervisor.supervisor import Supervisor

    for name, value in json.loads(sys.argv[4]).items():
        setattr(keeper, name, value)
    logs.configure("supervisor")
    try:
        run_dir = RunDir.take(sys.argv[2])
        plan = make_plan(make_config(json.loads(sys.argv[3])), run_dir=sys.argv[2])
        try:
            return Supervisor(plan, run_dir, command=lambda _: (__file__,)).run()
        finally:
            run_dir.release()
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(supervise() if sys.argv[1] == "supervise" else main())
