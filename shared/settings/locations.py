"""Default directories of a pipeline, by the XDG Base Directory rules."""

import os
from pathlib import Path

from bybit_pipeline.shared.errors import ConfigError, NoPipelineError
from bybit_pipeline.shared.settings.permissions import directory_fault

RUN_DIR_BYTES_MAX = 80
"""Longest path of a run directory: the paths of the sockets in it may have 107 bytes."""


def default_run_dir() -> str:
    """Return ``$XDG_RUNTIME_DIR/bybit-pipeline``, else ``/tmp/bybit-pipeline-UID``."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/bybit-pipeline" if runtime else f"/tmp/bybit-pipeline-{os.getuid()}"


def own_run_dir() -> str:
    """
    Return the default run directory, for programs that look for a running pipeline in it.

    Raises:
        NoPipelineError: If other users have access to it: anybody may create that name in ``/tmp``
            and run a pipeline of their own there.
    """
    path = Path(default_run_dir())
    try:
        fault = directory_fault(path)
    except OSError:
        fault = None  # it does not exist, so no pipeline of another user runs there
    if fault is not None:
        raise NoPipelineError(f"run_dir {path}: {fault}")
    return str(path)


def absolute_run_dir(run_dir: str | os.PathLike[str] | None) -> str:
    """
    Return the run directory as an absolute path; the default one for None.

    Raises:
        ConfigError: If the path is too long for the sockets in it.
    """
    path = os.path.abspath(run_dir or default_run_dir())
    if len(os.fsencode(path)) > RUN_DIR_BYTES_MAX:
        raise ConfigError(
            "run_dir", f"{path} is too long for sockets", f"at most {RUN_DIR_BYTES_MAX} bytes"
        )
    return path


def default_keys_dir() -> str:
    """Return ``$XDG_CONFIG_HOME/bybit-pipeline/keys``, else ``~/.config/bybit-pipeline/keys``."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{home}/bybit-pipeline/keys"


def absolute_state_dir(state_dir: str | os.PathLike[str] | None) -> str:
    """
    Return the state directory as an absolute path.

    The default is ``$XDG_STATE_HOME/bybit-pipeline``, else ``~/.local/state/bybit-pipeline``.
    """
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.abspath(state_dir or f"{home}/bybit-pipeline")
