"""The Prometheus reference against what every process of a running pipeline exports."""

import urllib.request
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.docs.pages import tables
from tests.system.pipeline import Pipeline, until

PREFIX = "bybit_pipeline_"
TYPES = ("counter", "gauge", "histogram")


class Family(NamedTuple):
    """A metric: its type and the names of its labels."""

    type: str
    labels: frozenset[str]


def documented() -> dict[str, Family]:
    """The rows ``name | type | labels | meaning`` of the reference."""
    found = {}
    for row in tables("docs/reference/prometheus.md"):
        if len(row) == 4 and row[1] in TYPES:
            name, kind, labels, meaning = row
            assert meaning, name
            names = frozenset(label.strip(" `") for label in labels.split(",") if label != "–")
            found[name.strip("`")] = Family(kind, names)
    return found


def exported(pipeline: Pipeline) -> dict[str, Family]:
    """The metrics of all processes. A metric without a sample has no labels here."""
    found: dict[str, Family] = {}
    for address in pipeline.endpoints()["prometheus"].values():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            if family.name.startswith(PREFIX):
                name = family.name.removeprefix(PREFIX)
                name += "_total" if family.type == "counter" else ""
                labels = {label for sample in family.samples for label in sample.labels}
                before = found.get(name, Family("", frozenset())).labels
                found[name] = Family(family.type, before | frozenset(labels - {"le"}))
    return found


def test_every_metric_is_documented_with_its_type_and_labels(pipeline: Pipeline) -> None:
    pipeline.command("subscribe", "linear:top:1:turnover")
    until(lambda: exported(pipeline)["pattern_symbols"].labels, "a pattern is measured")
    until(lambda: exported(pipeline)["completeness_ratio"].labels, "the ledger is read")

    found, wanted = exported(pipeline), documented()
    without_samples = {name for name, family in found.items() if not family.labels}

    assert found.keys() == wanted.keys()
    for name, family in wanted.items():
        assert found[name].type == family.type, name
        if name not in without_samples:
            assert found[name].labels == family.labels, name
    assert {"simulator_faults_total"} == {n for n in without_samples if wanted[n].labels}
