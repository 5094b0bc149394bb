"""Fixtures that more than one folder of tests uses."""

from pathlib import Path

import pytest

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "data" / "bybit"


@pytest.fixture(scope="session")
def captures() -> Path:
    """The directory of real recorded Bybit messages, which lies beside the checkout."""
    if not CAPTURES.is_dir():
        pytest.skip("the recorded captures are not beside this checkout")
    return CAPTURES
