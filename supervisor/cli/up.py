"""``up``: hold the run directory, choose between log and live view, run the supervisor."""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from bybit_pipeline.shared.errors import EX_OK, PipelineError
from bybit_pipeline.shared.files import DISK_FULL
from bybit_pipeline.shared.runtime import logs
from bybit_pipeline.shared.runtime.background_stream import CLOSE_S, BackgroundStream
from bybit_pipeline.shared.runtime.terminal import has_screen
from bybit_pipeline.shared.settings.permissions import UMASK
from bybit_pipeline.supervisor.cli.render import duration_text
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.run_dir import LOG, RunDir
from bybit_pipeline.supervisor.supervisor import Supervisor
from bybit_pipeline.supervisor.tui.rates import messages_of

log = structlog.get_logger()

DESCRIPTORS_MIN = 200
"""Open files that a process needs at least, including subscribers and scrapers."""
DESCRIPTORS_EACH = 8
"""Additional open files per other process of the plan."""
DESCRIPTORS_WANTED = 65_536
ROTATE_S = 1.0
"""Interval at which the size of the log file is checked."""
TOTALS_S = 1.0
"""Interval at which the counts for the summary are taken."""


class Totals:
    """Messages and gaps of a run, over all restarts of its processes."""

    def __init__(self) -> None:
        self.messages = 0
        self.gaps = 0
        self._runs: dict[tuple[str, Any], tuple[int, int]] = {}
        """Messages and gaps by name and pid, as of the latest status."""

    def take(self, status: Mapping[str, Any]) -> None:
        """Take the counts from a status of the pipeline."""
        for process in status.get("processes", ()):
            is_connector = process["role"] == "connector"
            messages = messages_of(process) if is_connector else None
            counts = (messages or 0, int(process["counts"].get("gaps", 0)))
            run = (process["process"], process["pid"])
            before = self._runs.get(run, (0, 0))
            self._runs[run] = (max(before[0], counts[0]), max(before[1], counts[1]))
        self.messages = sum(messages for messages, _ in self._runs.values())
        self.gaps = sum(gaps for _, gaps in self._runs.values())


def run(plan: Plan, warnings: Iterable[str] = ()) -> int:
    """
    Run a plan in the foreground until it is stopped; return the exit code.

    On a terminal a live view is shown, the log goes to ``pipeline.log`` in the run directory, and a
    summary is printed at the end. Without a terminal, or if a log format is given, the log goes to
    stderr.

    Args:
        plan: The plan.
        warnings: What is allowed in its configuration but rarely intended, for the log.

    Raises:
        TakenError: If the run directory or a port is taken.
        PipelineError: If this machine does not allow enough open files, or the disk is full.
    """
    ensure_descriptors(len(plan.processes))
    os.umask(UMASK)  # also for the children
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # until the supervisor has its own
    # A signal between creating the lock and entering the `try` would leak it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        run_dir = RunDir.take(plan.run_dir)
        keeps_log = True
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return _run_in(run_dir, plan, warnings)
        except (PipelineError, KeyboardInterrupt):
            keeps_log = False
            raise
        finally:
            run_dir.release(keep_log=keeps_log)
    except KeyboardInterrupt:
        return EX_OK
    except OSError as error:
        if error.errno in DISK_FULL:
            raise PipelineError(f"run_dir {plan.run_dir}: no space left on the disk") from error
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ensure_descriptors(processes: int) -> None:
    """
    Raise the limit of open files as far as allowed; the children inherit it.

    ZeroMQ aborts a process that cannot open a file, so too low a limit is an error at the start.

    Raises:
        PipelineError: If this many processes need more than the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    needed = DESCRIPTORS_MIN + DESCRIPTORS_EACH * processes
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise PipelineError(
            f"open files: the limit is {hard} (ulimit -n); "
            f"{processes} processes need {needed} or more"
        )


def _run_in(run_dir: RunDir, plan: Plan, warnings: Iterable[str]) -> int:
    has_view = plan.log_format == "auto" and has_screen()
    has_log_file = has_view and sys.stderr.isatty()
    totals = Totals()
    with ExitStack() as stack:
        if has_log_file:
            _divert_log(stack, run_dir)
        logs.configure("supervisor", plan.log_format, plan.log_level)
        if has_log_file:
            stack.callback(logs.close)
        for warning in warnings:
            log.warning(warning)
        supervisor = Supervisor(plan, run_dir, log_children=has_log_file)
        supervisor.every(TOTALS_S, lambda: totals.take(supervisor.snapshot.status))
        if has_view:
            _show(stack, supervisor)
        started = time.monotonic()
        try:
            exit_code = supervisor.run()
        except PipelineError:
            raise
        except Exception as error:
            if not (isinstance(error, OSError) and error.errno in DISK_FULL):
                log.exception("bug")
            raise
        totals.take(supervisor.snapshot.status)
        uptime_s = time.monotonic() - started
    if sys.stdout.isatty():
        log_file = run_dir.path / LOG if has_log_file else None
        output = BackgroundStream(sys.stdout)  # a stalled terminal must not hold up the end
        output.write(f"{_summary(uptime_s, totals, log_file)}\n")
        output.close()
    return exit_code


def _summary(uptime_s: float, totals: Totals, log_file: Path | None) -> str:
    """Return one line about a run that has ended."""
    gaps = f"{totals.gaps:,} gap{'' if totals.gaps == 1 else 's'}"
    line = f"ran for {duration_text(uptime_s)}: {totals.messages:,} messages, {gaps}"
    return line if log_file is None else f"{line}; log: {log_file}"


def _divert_log(stack: ExitStack, run_dir: RunDir) -> None:
    terminal = sys.stderr
    file = stack.enter_context((run_dir.path / LOG).open("a", buffering=1))
    stack.callback(lambda: setattr(sys, "stderr", terminal))
    sys.stderr = file
    stopping = threading.Event()
    # A thread: copying waits for the disk.
    thread = threading.Thread(target=_rotate_log, args=(run_dir, stopping), daemon=True)
    thread.start()
    stack.callback(thread.join, CLOSE_S)
    stack.callback(stopping.set)


def _rotate_log(run_dir: RunDir, stopping: threading.Event) -> None:
    while not stopping.wait(ROTATE_S):
        run_dir.rotate_log()


def _show(stack: ExitStack, supervisor: Supervisor) -> None:
    from bybit_pipeline.supervisor.tui.live import LiveView  # loads rich

    view = LiveView(lambda: supervisor.snapshot, keys=supervisor.plan.keys)
    view.start()
    stack.callback(view.stop)
