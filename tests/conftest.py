"""Fixtures that more than one folder of tests uses."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast the machine is just now says nothing about the code: no deadlines in properties.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# What runs in the background or under nohup ignores these, and so would the processes it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The gap ledger of a test must not be that of the user who runs it.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="bybit-pipeline-tests-")

SLOW_FIRST = ("reliability", "system", "supervisor", "packaging", "docs", "orderbook", "trades")
"""Folders whose files take longest: started first, so that none of them is left for the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first; the order within a file stays."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return SLOW_FIRST.index(folder) if folder in SLOW_FIRST else len(SLOW_FIRST)

    items.sort(key=rank)


CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "data" / "bybit"


@pytest.fixture(scope="session")
def captures() -> Path:
    """The directory of real recorded Bybit messages, which lies beside the checkout."""
    if not CAPTURES.is_dir():
        pytest.skip("the recorded captures are not beside this checkout")
    return CAPTURES


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Certificate and key of ``localhost`` that no authority has signed."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    try:
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                key,
                "-out",
                cert,
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,DNS:exchange.test",
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("needs the openssl command to make a certificate")
    return cert, key
