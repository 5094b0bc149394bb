"""Errors that cross process or package boundaries, and the exit codes of every command."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

# The numbers of sysexits.h, which ``os`` lacks on Windows, where the client runs too.
EX_OK = 0
EX_FAILED = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_CONFIG = 78

EXIT_CODES = {
    EX_OK: "done, or stopped on request",
    EX_FAILED: "failed while running; for some commands a negative answer, described in their help",
    EX_USAGE: "wrong usage of the command line",
    EX_UNAVAILABLE: "no pipeline runs in the run directory, or it does not answer",
    EX_SOFTWARE: "a bug; the log has a traceback",
    EX_CANTCREAT: "the run directory or a port is taken; the message names the holder",
    EX_CONFIG: "bad configuration",
}
"""Meaning of every exit code."""

FINAL_EXIT_CODES = frozenset({EX_USAGE, EX_CONFIG})
"""Exit codes that are never retried: a restart does not change the outcome."""


class PipelineError(Exception):
    """An expected failure with a message for people; ``exit_code`` ends the command."""

    exit_code = EX_FAILED


class Mistake(NamedTuple):
    """One thing that is wrong in a configuration."""

    where: str
    """The key, such as ``market[0].depth``; empty if the file as a whole is wrong."""
    what: str
    allowed: str = ""
    place: str = ""
    """Origin of the value: ``pipeline.toml:5`` or ``--depth``; empty if unknown."""

    def __str__(self) -> str:
        text = f"{self.what}; use {self.allowed}" if self.allowed else self.what
        is_same = self.place == f"--{self.where.replace('_', '-')}"
        return ": ".join(part for part in (self.place, "" if is_same else self.where, text) if part)


class ConfigError(PipelineError):
    """
    A configuration that cannot be run: all of its mistakes, one line each.

    Args:
        where, what, allowed: The only mistake.
    """

    exit_code = EX_CONFIG

    def __init__(self, where: str, what: str, allowed: str = "") -> None:
        self.mistakes: tuple[Mistake, ...] = (Mistake(where, what, allowed),)
        super().__init__(where, what, allowed)

    @classmethod
    def of(cls, mistakes: Iterable[Mistake]) -> "ConfigError":
        """Return the error for one mistake or several."""
        several = tuple(mistakes)
        error = cls(*several[0][:3])
        error.mistakes = several
        return error

    def located(self, place_of: Callable[[str], str]) -> "ConfigError":
        """
        Return the same error with the origin of every value, in the order of the file's lines.

        Args:
            place_of: From a key such as ``market[0].depth`` to its origin.
        """
        placed = (
            mistake if mistake.place else mistake._replace(place=place_of(mistake.where))
            for mistake in self.mistakes
        )
        return ConfigError.of(sorted(placed, key=_line))

    @property
    def where(self) -> str:
        """The key of the first mistake."""
        return self.mistakes[0].where

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))


def _line(mistake: Mistake) -> int:
    line = mistake.place.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


class TakenError(PipelineError):
    """Another process or user holds the run directory, a port or a file."""

    exit_code = EX_CANTCREAT


class NoPipelineError(PipelineError):
    """No pipeline runs in the run directory, or it does not answer."""

    exit_code = EX_UNAVAILABLE


class CodecError(ValueError):
    """Bytes on a bus that are not a message of this schema."""
