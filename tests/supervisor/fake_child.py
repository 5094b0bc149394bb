"""
A fake child that behaves as the test says; run as a process.

It implements the control plane without our own code, to start fast and to pin down what the
supervisor relies on. ``BEHAVIOUR`` in the environment is a JSON map from process name to:

    exit            exit code, right after the start
    exit_times      number of runs that exit, before one that does not (default: all)
    never_ready     seconds to sleep before ``ready``
    ignore_sigterm  true: ignore SIGTERM
    status          fields of the status, over the defaults
    resync          topic to request a resync for, with every heartbeat
    websocket       address to announce as the simulator's

The commands that it has received are in its status as ``commands``. With ``supervise`` as its first
argument it runs the supervisor of such children.
"""

import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import msgpack
import zmq

HEARTBEAT_MS = 100


class FakeChild:
    """Reports ready, sends heartbeats, collects commands, and stops like a real child."""

    def __init__(self, spec: dict[str, Any], behaviour: dict[str, Any]) -> None:
        self.spec = spec
        self.behaviour = behaviour
        self.commands: list[dict[str, Any]] = []
        self.socket = zmq.Context().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, spec["process"].encode())
        self.socket.setsockopt(zmq.LINGER, 100)
        self.socket.connect(spec["control"])

    def run(self, lifeline: int) -> None:
        """Run until SIGTERM or the end of the supervisor."""
        self.send(
            "ready",
            pid=os.getpid(),
            role=self.spec["role"],
            prometheus="127.0.0.1:9",
            endpoints=self.endpoints(),
        )
        poller = zmq.Poller()
        for source in (self.socket, lifeline):
            poller.register(source, zmq.POLLIN)
        while True:
            self.send("heartbeat", status=self.status())
            if "resync" in self.behaviour:
                self.send("resync", topic=self.behaviour["resync"], reason="gap")
            readable = dict(poller.poll(HEARTBEAT_MS))
            if lifeline in readable:
                return
            if self.socket in readable:
                self.commands.append(msgpack.unpackb(self.socket.recv()))

    def send(self, kind: str, **fields: Any) -> None:
        """Send one control message."""
        self.socket.send(msgpack.packb({"type": kind, "process": self.spec["process"], **fields}))

    def endpoints(self) -> dict[str, str]:
        """The endpoints that a real child of the role binds."""
        if self.spec["role"] == "forwarder":
            return {"metrics": self.spec["endpoint"].replace(":0", ":5999")}
        if self.spec["role"] == "simulator":
            return {"websocket": self.behaviour["websocket"]}
        return {}

    def _live_since(self) -> int | None:
        """The time of the first live message, which follows the change of the source."""
        is_live = any(command.get("source") == "live" for command in self.commands)
        return 1 if is_live and self.behaviour.get("has_live_data", True) else None

    def status(self) -> dict[str, Any]:
        """The status of a healthy child of the role."""
        status: dict[str, Any] = {"commands": self.commands}
        streams = self.spec.get("streams")
        if streams is not None:
            names = [
                f"orderbook.{s['depth']}.{s['symbol']}"
                if s["kind"] == "book"
                else f"publicTrade.{s['symbol']}"
                for s in streams
            ]
            status |= {
                "connected": True,
                "url": self.spec["url"],
                "last_message_ts_ms": None,
                "live_since_ts_ms": self._live_since(),
                "topics": dict.fromkeys(names, "delivering"),
            }
        if self.spec["role"] == "orderbook":
            status["books"] = {"live": len(self.spec["assignments"])}
        return {**status, **self.behaviour.get("status", {})}


def main() -> int:
    """Run one child."""
    path, lifeline = Path(sys.argv[1]), int(sys.argv[3])
    spec = json.loads(path.read_text())
    behaviour = json.loads(os.environ.get("BEHAVIOUR", "{}")).get(spec["process"], {})
    if "exit" in behaviour and is_due(path, behaviour):
        return int(behaviour["exit"])
    if behaviour.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    select.select([lifeline], [], [], behaviour.get("never_ready", 0))
    try:
        FakeChild(spec, behaviour).run(lifeline)
    finally:
        print(json.dumps({"event": "stopped", "process": spec["process"]}), file=sys.stderr)
    return 0


def is_due(path: Path, behaviour: dict[str, Any]) -> bool:
    """True in the first ``exit_times`` runs, which a file beside the run directory counts."""
    counter = path.parent.parent / f"{path.stem}.runs"
    runs = len(counter.read_bytes()) if counter.exists() else 0
    counter.write_bytes(b"x" * (runs + 1))
    return runs < int(behaviour.get("exit_times", 1_000_000))


def supervise() -> int:
    """``RUN_DIR TABLES TIMING``: run a supervisor with fake children."""
    import msgspec

    from bybit_pipeline.shared.errors import PipelineError
    from bybit_pipeline.shared.runtime import logs
    from bybit_pipeline.shared.settings.validation import make_config
    from bybit_pipeline.supervisor.children.timing import Timing
    from bybit_pipeline.supervisor.plan.plan import make_plan
    from bybit_pipeline.supervisor.run_dir import RunDir
    from bybit_pipeline.supervisor.supervisor import Supervisor

    logs.configure("supervisor")
    try:
        run_dir = RunDir.take(sys.argv[2])
        plan = make_plan(make_config(json.loads(sys.argv[3])), run_dir=sys.argv[2])
        try:
            timing = msgspec.convert(json.loads(sys.argv[4]), Timing)
            return Supervisor(plan, run_dir, command=lambda _: (__file__,), timing=timing).run()
        finally:
            run_dir.release()
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(supervise() if sys.argv[1] == "supervise" else main())
