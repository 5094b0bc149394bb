"""
One child process: start, signals, exit, CPU time and memory.

Every child has a session of its own, so that Ctrl-C on the terminal reaches only the supervisor. It
inherits the reading end of the supervisor's lifeline (see ``Actor``). Knows nothing of roles,
heartbeats or restarts.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog

log = structlog.get_logger()

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Lifeline:
    """
    The pipe whose end of file tells children that the supervisor is gone.

    Only the supervisor holds the writing end, so the operating system closes it however the
    supervisor ends. Nothing is ever written.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)

    def close(self) -> None:
        """Close both ends."""
        os.close(self._writer)
        os.close(self.reader)


class ChildProcess:
    """
    A running process, from construction until ``poll`` returns its exit code.

    Args:
        command: Arguments for the Python interpreter, such as ``-m MODULE SPEC.json``.
        lifeline: The supervisor's lifeline.
        log: File to append its output to; None for our stderr.
    """

    def __init__(
        self, command: Sequence[str], *, lifeline: Lifeline, log: Path | None = None
    ) -> None:
        output = sys.stderr.fileno() if log is None else _open_log_or_null(log)
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
        """Process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the process to stop."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    @property
    def cpu_s(self) -> float:
        """CPU time used, in seconds."""
        used = usage(self.pid)
        return 0.0 if used is None else used[0]

    @property
    def is_runnable(self) -> bool:
        """True if a thread is runnable now."""
        return is_runnable(self.pid)

    def wait(self) -> int:
        """Wait for the exit, after ``kill``; return the exit code."""
        return self._process.wait()


def reap_foreign(own: Collection[int]) -> None:
    """
    Collect exited processes that we did not start, up to the first exited one that we did.

    Process 1 of a container inherits every orphan in it, such as those of ``podman exec``. A
    program that a shell replaced itself with inherits the shell's background processes. Whatever is
    not collected stays a zombie.

    Args:
        own: Process ids of our running children, which ``poll`` collects.
    """
    with contextlib.suppress(ChildProcessError):  # there are no children at all
        while True:
            exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if exited is None or exited.si_pid in own:
                return
            os.waitpid(exited.si_pid, os.WNOHANG)


def _open_log_or_null(path: Path) -> int:
    """A log that cannot be opened, because it was removed on a full disk, stops no process."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("log file not opened, output of a process is lost", error=str(error))
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def usage(pid: int) -> tuple[float, int] | None:
    """CPU time in seconds and resident memory in bytes; None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
    return (user + system) / CLOCK_TICKS, resident * PAGE_BYTES


def is_runnable(pid: int) -> bool:
    """True if a thread of the process runs, waits for a CPU, or waits for a disk."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # that thread has just ended
            if path.read_text().rpartition(")")[2].split()[0] in ("R", "D"):
                return True
    return False
