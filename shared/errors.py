"""Errors that cross a seam, and the exit codes of contract section 1."""

# The numbers of sysexits.h, which ``os`` lacks on Windows, where the client runs too.
EX_OK = 0
EX_FAILED = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_CONFIG = 78

FINAL_EXIT_CODES = frozenset({EX_USAGE, EX_CONFIG})
"""Exits a restart cannot mend."""


class PipelineError(Exception):
    """An expected failure, said in one line; ``exit_code`` is what the command ends with."""

    exit_code = EX_FAILED


class ConfigError(PipelineError):
    """A configuration that cannot be run: what is wrong, where, and what is allowed."""

    exit_code = EX_CONFIG

    def __init__(self, where: str, what: str, allowed: str = "") -> None:
        self.where = where
        self.what = what
        self.allowed = allowed
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}; allowed: {allowed}" if allowed else text)


class TakenError(PipelineError):
    """The run directory or a port belongs to somebody else."""

    exit_code = EX_CANTCREAT


class NoPipelineError(PipelineError):
    """Nothing runs in the given run directory."""

    exit_code = EX_UNAVAILABLE


class CodecError(ValueError):
    """Bytes on a bus that are not a message of this schema."""
