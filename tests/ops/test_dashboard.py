"""The Grafana dashboard can be imported, and every query returns data from a real Prometheus."""

import json
import re
from itertools import combinations
from typing import Any

import pytest

from tests.ops.prometheus import OPS, Prometheus
from tests.system.pipeline import until

DASHBOARD: dict[str, Any] = json.loads((OPS / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
BUILT_IN = {"__rate_interval", "__range", "__interval"}
VALUES = {
    "symbol": "BTCUSDT|ETHUSDT",
    "window": "60s",
    "levels": "10",
    "__rate_interval": "4s",
    "__interval": "4s",
    "__range": "10s",
}
"""Values that Grafana would insert for the variables."""
NEEDS_AN_EVENT = {"Restarts"}
"""Annotations that mark events, of which a quiet pipeline has none. Panels must have data."""


def queries() -> dict[str, str]:
    """Every query of every panel, by panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel.get("targets", [])
    }


def filled(expression: str) -> str:
    """The expression with values for its variables."""
    return re.sub(r"\$(\w+)", lambda found: VALUES[found[1]], expression)


def test_every_query_returns_data(prometheus: Prometheus) -> None:
    waiting = queries()
    assert len(waiting) > 40

    def answered() -> bool:
        for name, expression in list(waiting.items()):
            if prometheus.query(filled(expression)):
                del waiting[name]
        return not waiting

    try:
        until(answered, "data for every query")
    except AssertionError as error:
        raise AssertionError(f"no data: {json.dumps(waiting, indent=1)}") from error


def test_annotations_are_valid_queries(prometheus: Prometheus) -> None:
    annotations = DASHBOARD["annotations"]["list"]

    assert NEEDS_AN_EVENT == {annotation["name"] for annotation in annotations}
    for annotation in annotations:
        prometheus.query(filled(annotation["expr"]))


def test_variables_offer_the_published_markets_windows_and_levels(prometheus: Prometheus) -> None:
    offers = {
        "symbol": {"BTCUSDT", "ETHUSDT"},
        "window": {"10s", "60s", "300s"},
        "levels": {"1", "5", "10", "50"},
    }
    variables = {entry["name"]: entry for entry in DASHBOARD["templating"]["list"]}

    def offered(name: str) -> set[str]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"])
        assert found is not None
        return {labels[found[2]] for labels, _ in prometheus.query(found[1])}

    until(lambda: {name: offered(name) for name in offers} == offers, f"{offers}")
    assert variables["window"]["current"]["value"] in offers["window"]
    assert variables["levels"]["current"]["value"] in offers["levels"]


def test_it_can_be_imported_with_any_data_source() -> None:
    variables = {entry["name"]: entry for entry in DASHBOARD["templating"]["list"]}

    assert "datasource" == variables["datasource"]["type"]
    assert "prometheus" == variables["datasource"]["query"]
    assert DASHBOARD["id"] is None
    assert "__inputs" not in DASHBOARD
    querying = [
        *(target for panel in PANELS for target in panel.get("targets", [])),
        *(panel for panel in PANELS if panel["type"] != "row"),
        *(entry for entry in variables.values() if entry["type"] == "query"),
        *DASHBOARD["annotations"]["list"],
    ]
    assert all(SOURCE == entry["datasource"] for entry in querying)


def test_queries_use_only_declared_variables() -> None:
    declared = {entry["name"] for entry in DASHBOARD["templating"]["list"]} | BUILT_IN

    used = {name for text in queries().values() for name in re.findall(r"\$\{?(\w+)", text)}

    assert used <= declared
    assert set(VALUES) - BUILT_IN <= used


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one['title']} overlaps {other['title']}"


@pytest.mark.parametrize(
    "panel", [p for p in PANELS if p["type"] != "row"], ids=lambda p: p["title"]
)
def test_a_panel_has_a_unit(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
