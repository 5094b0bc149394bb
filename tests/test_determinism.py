"""The determinism contract: pure modules read no clock, draw no chance and open no socket."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "asyncio",
    "http.client",
    "http.server",
    "random",
    "secrets",
    "select",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "urllib.request",
    "uuid",
    "websocket",
    "zmq",
}
NOW = {"now", "utcnow", "today"}
CORES = (
    "processes/orderbook/book.py",
    "processes/orderbook/local_book.py",
    "processes/orderbook/manager.py",
    "processes/orderbook/measures.py",
    "processes/trades/aggregator.py",
    "processes/trades/coverage.py",
    "processes/trades/dedup.py",
    "processes/trades/tape.py",
    "processes/trades/window.py",
    "processes/forwarder/last_value_cache.py",
    "supervisor/children/restart.py",
)
"""Pure modules whose first lines do not say so."""


def pure_modules() -> Iterator[str]:
    for folder in ("shared", "processes", "supervisor"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            name = str(path.relative_to(ROOT))
            if "Pure." in text or "Pure:" in text or name in CORES:
                yield name


def impurities(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN:
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and node.attr in NOW:
            owner = node.value
            if isinstance(owner, ast.Attribute | ast.Name):
                owner_name = owner.attr if isinstance(owner, ast.Attribute) else owner.id
                if owner_name in ("datetime", "date"):
                    found.append(f"{owner_name}.{node.attr}")
    return found


def test_the_cores_are_among_the_pure_modules() -> None:
    assert set(CORES) <= set(pure_modules())
    assert len(set(pure_modules())) > 40


@pytest.mark.parametrize("name", sorted(pure_modules()))
def test_a_pure_module_reads_no_clock_and_opens_no_socket(name: str) -> None:
    assert [] == impurities((ROOT / name).read_text())


@pytest.mark.parametrize(
    "source", ["import time", "from random import Random", "datetime.now()", "dt.date.today()"]
)
def test_the_rule_finds_what_it_forbids(source: str) -> None:
    assert impurities(source)
