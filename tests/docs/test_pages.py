"""The pages agree with the code and with each other: links, paths, names, style."""

import inspect
import re
from typing import Any, get_args

import pytest

import bybit_pipeline
from bybit_pipeline.processes.simulator import faults
from bybit_pipeline.processes.simulator.market import scenario
from tests.docs.pages import LINK, PAGES, ROOT, anchors, prose, read, tables

WIDTH = 100
TREES = "docs|processes|requirements|scripts|shared|src|supervisor|tests"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """The files and headings that links name exist."""
    for target, anchor in LINK.findall(read(page)):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    """Paths in the repository that a page names exist."""
    named = re.findall(rf"`((?:{TREES})/[\w./-]+)", read(page))
    assert [] == [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_not_too_long(page: str) -> None:
    """Tables, links and code aside, which cannot be wrapped."""
    lines = prose(page).splitlines()
    assert [] == [
        line for line in lines if len(line) > WIDTH and not re.match(r"\s*(\||!?\[|#)", line)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_reachable_from_the_readme(page: str) -> None:
    """No page is an orphan."""
    reached, waiting = {"README.md"}, ["README.md"]
    while waiting:
        origin = waiting.pop()
        for target, _ in LINK.findall(read(origin)):
            path = ((ROOT / origin).parent / target).resolve() if target else ROOT
            name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
            if name in PAGES and name not in reached:
                reached.add(name)
                waiting.append(name)
    assert page in reached


def test_every_kind_of_process_is_in_the_architecture() -> None:
    """A newcomer who wonders what a folder is finds it there."""
    text = read("docs/explanation/architecture.md")
    folders = sorted(path.parent.name for path in (ROOT / "processes").glob("*/__main__.py"))
    assert folders
    assert [] == [f for f in folders if f"(../../processes/{f})" not in text]


def test_the_faults_of_the_simulated_exchange_are_documented() -> None:
    rows = [row for row in tables("docs/reference/simulator.md") if row[1:2] and row[1].isdigit()]
    assert faults.DEFAULT_EVERY == {row[0].strip("`"): int(row[1]) for row in rows}


def test_the_actions_of_scenarios_are_documented() -> None:
    text = read("docs/reference/simulator.md").partition("## Scenarios")[2]
    actions = {action.__struct_config__.tag for action in get_args(scenario.AnyAction)}
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert ["do", *sorted(actions)] == [rows[0], *sorted(rows[1:])]


def public(cls: type[Any]) -> set[str]:
    """The public methods and properties of a class."""
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}


def documented(section: str) -> dict[str, str]:
    """The names in the table of a section of the Python reference, and how they are called."""
    parts = re.split(r"^## ", read("docs/reference/python-api.md"), flags=re.MULTILINE)
    (text,) = [part for part in parts if part.splitlines()[0] == section]
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return {name: call for cell in cells for name, call in re.findall(r"`(\w+)([^`]*)`", cell)}


def call(method: Any) -> str:
    """How a method is called, written as in the reference; nothing for a property."""
    if isinstance(method, property):
        return ""
    signature = inspect.signature(method)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()][1:]
    text = str(signature.replace(parameters=plain, return_annotation=signature.empty))
    return text.replace("'", '"')


def test_every_public_name_has_a_section() -> None:
    names = {name for name in bybit_pipeline.__all__ if not name.startswith("_")}
    assert names == {name for name in names if documented(name)}


def test_every_method_of_the_client_is_documented_as_it_is_called() -> None:
    cls = bybit_pipeline.PipelineClient
    assert {name: call(getattr(cls, name)) for name in public(cls)} == documented("PipelineClient")


def test_the_client_for_asyncio_has_the_same_methods() -> None:
    cls = bybit_pipeline.AsyncPipelineClient
    assert public(bybit_pipeline.PipelineClient) == public(cls)
    calls = documented("AsyncPipelineClient")
    assert {name: call(getattr(cls, name)) for name in calls} == calls


@pytest.mark.parametrize("name", ["BybitWebSocketClient", "TradesAggregator", "OrderBookManager"])
def test_every_documented_method_exists(name: str) -> None:
    assert set(documented(name)) <= public(getattr(bybit_pipeline, name))
    assert len(documented(name)) >= 5
