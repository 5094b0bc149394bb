"""The rooms of the supervisor import each other in one direction."""

import ast
from collections.abc import Iterator
from pathlib import Path

import bybit_pipeline.supervisor.run_dir

ROOT = Path(bybit_pipeline.supervisor.run_dir.__file__).parent
PACKAGE = "bybit_pipeline.supervisor"
ORDER = (
    "interrupts",
    "plan",
    "run_dir",
    "ledger",
    "children",
    "source",
    "status",
    "supervisor",
    "tui",
    "cli",
)
"""Each room imports only rooms before it."""


def imported_rooms(path: Path) -> Iterator[str]:
    """The rooms that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name.startswith(f"{PACKAGE}."):
                    yield name.removeprefix(f"{PACKAGE}.").split(".")[0]


def test_every_room_imports_only_rooms_before_it() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room != "__init__":
            allowed = ORDER[: ORDER.index(room) + 1]
            wrong += [f"{path}: {name}" for name in imported_rooms(path) if name not in allowed]

    assert [] == wrong
