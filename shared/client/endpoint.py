"""Look-up of the metrics socket of a pipeline on this machine."""

import json
import os
from pathlib import Path

from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.shared.settings.locations import own_run_dir


def find_endpoint(run_dir: str | Path | None) -> tuple[str, str | None]:
    """
    The metrics endpoint in a run directory, and the directory of its keys if it uses any.

    Raises:
        NoPipelineError: If no pipeline runs there.
    """
    if run_dir is None and not hasattr(os, "getuid"):
        raise NoPipelineError(
            "pipelines run on Linux; name the endpoint of one, such as tcp://192.0.2.1:5556"
        )
    path = Path(run_dir or own_run_dir()) / "endpoints.json"
    try:
        endpoints = json.loads(path.read_text())
        return str(endpoints["metrics"]), endpoints.get("keys")
    except OSError as error:
        raise NoPipelineError(f"no pipeline runs in {path.parent}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NoPipelineError(f"{path}: no metrics endpoint in it") from error
