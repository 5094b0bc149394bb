"""Logging of every process: a short phrase and keys on stderr, for people or as JSON lines."""

import atexit
import logging
import sys
from functools import partial
from typing import TextIO, cast

import structlog

from bybit_pipeline.shared.runtime.background_stream import BackgroundStream
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.runtime.terminal import has_control_codes
from bybit_pipeline.shared.settings.specs import LogFormat, LogLevel

log = structlog.get_logger()

_stream: BackgroundStream | None = None


def expose_lost_lines(telemetry: Telemetry, process: str) -> None:
    """Publish the number of lost log lines of this process to Prometheus."""
    telemetry.counters(
        "log_lines_lost_total",
        "Log lines that could not be written.",
        ("process",),
        lambda: [((process,), lost_lines())],
    )


def lost_lines() -> int:
    """Return the number of log lines of this process that could not be written."""
    return 0 if _stream is None else _stream.lost


def configure(process: str, log_format: LogFormat = "auto", level: LogLevel = "info") -> None:
    """
    Send the log of this process to stderr; every line carries ``process``.

    ``auto`` writes for people on a terminal, and JSON lines otherwise. From here on ``sys.stderr``
    itself never waits for its reader, so neither does a traceback or a warning of a library.
    """
    global _stream
    stream = _stream = BackgroundStream(sys.stderr, on_loss=_report_loss)
    sys.stderr = cast(TextIO, stream)
    atexit.register(close)
    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        partial(_add_process, process),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        renderer: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(colors=has_control_codes(sys.stderr))
        ]
    else:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s", force=True)


def close() -> None:
    """Write the lines that wait, as far as their reader takes them within ``CLOSE_S``."""
    if _stream is not None:
        _stream.close()


def _report_loss(lines: int) -> None:
    log.warning("log lines lost", lines=lines)


def _add_process(
    process: str, _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the process to every line, from any thread."""
    event.setdefault("process", process)
    return event
