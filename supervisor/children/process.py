"""
One child process: start, signals, exit, and what it uses of the machine.

Every child is a session of its own, so that Ctrl-C on the terminal reaches only the supervisor,
and gets the reading end of the supervisor's lifeline (see ``Actor``). Knows nothing of
roles, heartbeats or restarts.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Lifeline:
    """
    The pipe that tells children that the supervisor is gone.

    The writing end lives only in this process, so the operating system closes it however the
    process dies; nothing is ever written.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)

    def close(self) -> None:
        """Close both ends."""
        os.close(self._writer)
        os.close(self.reader)


class ChildProcess:
    """
    A running process, from construction until ``poll`` gives its exit.

    Args:
        command: What to run after the Python interpreter, such as ``-m MODULE SPEC.json``.
        lifeline: The supervisor's.
        log: A file to append its output to; None sends it to our stderr.
    """

    def __init__(
        self, command: Sequence[str], *, lifeline: Lifeline, log: Path | None = None
    ) -> None:
        output = sys.stderr.fileno() if log is None else _open_log(log)
        try:
            self._process = subprocess.Popen(
                [sys.executable, *command, "--lifeline", str(lifeline.reader)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lifeline.reader,),
                start_new_session=True,
            )
        finally:
            if log is not None:
                os.close(output)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit as ``subprocess`` gives it (negative: by that signal), None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def demand(self) -> tuple[float, bool]:
        """CPU time that it has used in seconds, and whether it wants more now."""
        used = usage(self.pid)
        return (0.0 if used is None else used[0], wants_time(self.pid))

    def wait(self) -> int:
        """Wait for its exit; only after ``kill``."""
        return self._process.wait()


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def usage(pid: int) -> tuple[float, int] | None:
    """CPU time in seconds and resident memory in bytes of a process, None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
    return (user + system) / CLOCK_TICKS, resident * PAGE_BYTES


def wants_time(pid: int) -> bool:
    """Whether any thread of a process is running, waits for a processor, or for a disk."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # that thread has just ended
            if path.read_text().rpartition(")")[2].split()[0] in ("R", "D"):
                return True
    return False
