"""``up``: hold the run directory, choose between log and live view, run the supervisor."""

import os
import resource
import signal
import sys
from contextlib import ExitStack

import structlog

from bybit_pipeline.shared.errors import EX_OK, PipelineError
from bybit_pipeline.shared.runtime import logs
from bybit_pipeline.shared.settings.permissions import UMASK
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.run_dir import LOG, RunDir
from bybit_pipeline.supervisor.supervisor import Supervisor
from bybit_pipeline.supervisor.tui import has_terminal

log = structlog.get_logger()

DESCRIPTORS_MIN = 200
"""Open files that a process needs at least, subscribers and scrapers included."""
DESCRIPTORS_EACH = 8
"""And for every other process of the plan."""
DESCRIPTORS_WANTED = 65_536


def run(plan: Plan) -> int:
    """
    Run a plan in the foreground until it is stopped; the exit code.

    On a terminal a live view is shown and the log goes to ``pipeline.log`` in the run directory,
    where it stays if a bug ended the run; otherwise, or if a log format is asked for, the log goes
    to stderr.

    Raises:
        TakenError: If the run directory or a port is taken.
        PipelineError: If this machine does not let us have enough file descriptors.
    """
    ensure_descriptors(len(plan.processes))
    os.umask(UMASK)  # of our children as well
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # until the supervisor has its own
    # Who interrupts between making the lock and minding it would leave it behind.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        run_dir = RunDir.take(plan.run_dir)
        has_bug = True
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            exit_code = _run_in(run_dir, plan)
            has_bug = False
        except (PipelineError, KeyboardInterrupt):
            has_bug = False
            raise
        finally:
            run_dir.release(keep_log=has_bug)
    except KeyboardInterrupt:
        return EX_OK
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return exit_code


def ensure_descriptors(processes: int) -> None:
    """
    Raise the limit of open files as far as is allowed; our children inherit it.

    ZeroMQ ends the process when it cannot open one more, so too few are refused at the start.

    Raises:
        PipelineError: If a plan of so many processes needs more than we may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    needed = DESCRIPTORS_MIN + DESCRIPTORS_EACH * processes
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise PipelineError(
            f"open files: this process may have {hard} (ulimit -n); "
            f"at least {needed} are needed for {processes} processes"
        )


def _run_in(run_dir: RunDir, plan: Plan) -> int:
    has_view = plan.log_format == "auto" and has_terminal()
    has_log_file = has_view and sys.stderr.isatty()
    with ExitStack() as stack:
        if has_log_file:
            _divert_log(stack, run_dir)
        logs.configure("supervisor", plan.log_format, plan.log_level)
        supervisor = Supervisor(plan, run_dir, log_children=has_log_file)
        if has_view:
            _show(stack, supervisor)
        try:
            return supervisor.run()
        except PipelineError:
            raise
        except Exception:
            log.exception("bug")
            raise


def _divert_log(stack: ExitStack, run_dir: RunDir) -> None:
    terminal = sys.stderr
    file = stack.enter_context((run_dir.path / LOG).open("a", buffering=1))
    stack.callback(lambda: setattr(sys, "stderr", terminal))
    sys.stderr = file


def _show(stack: ExitStack, supervisor: Supervisor) -> None:
    from bybit_pipeline.supervisor.tui.live import (
        LiveView,  # rich is only wanted on a terminal
    )

    view = LiveView(lambda: supervisor.snapshot, keys=supervisor.plan.keys)
    view.start()
    stack.callback(view.stop)
