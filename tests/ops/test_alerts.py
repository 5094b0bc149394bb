"""The alert rules: valid, about series that exist, explained, and tested with promtool."""

import re
from collections.abc import Iterator

import pytest

from tests.ops.prometheus import OPS, Prometheus, promtool
from tests.system.pipeline import until

GUIDE = OPS.parent / "howto" / "alerts.md"
SELECTOR = re.compile(r"\b(bybit_pipeline_\w+|process_\w+|up)\b(\{[^}]*\})?")


def alert_names(text: str) -> list[str]:
    """The names in the text of a rules file."""
    return re.findall(r"- alert: (\w+)", text)


def headings(text: str) -> Iterator[str]:
    """The anchors of the headings of a Markdown text."""
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def selectors(expression: str) -> set[str]:
    """The selectors of an expression: every name with its label matchers."""
    return {name + (matchers or "") for name, matchers in SELECTOR.findall(expression)}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    *command, name = arguments

    checked = promtool(*command, str(OPS / name))

    assert 0 == checked.returncode, checked.stdout + checked.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = (OPS / "alerts_test.yml").read_text()
    tried = re.findall(r"alertname: (\w+)\s+exp_alerts:[ ]*(\[\])?", cases)

    names = set(alert_names((OPS / "alerts.yml").read_text()))

    assert names
    assert names == {name for name, nothing in tried if not nothing}
    assert names == {name for name, nothing in tried if nothing}


def test_prometheus_evaluates_every_alert_without_an_error(prometheus: Prometheus) -> None:
    until(
        lambda: prometheus.rules() and all(r["health"] != "unknown" for r in prometheus.rules()),
        "all rules evaluated",
    )

    rules = prometheus.rules()

    names = alert_names((OPS / "alerts.yml").read_text())
    assert sorted(names) == sorted(rule["name"] for rule in rules)
    assert {} == {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"}
    for rule in rules:
        prometheus.api("query", query=rule["query"])


def test_every_alert_looks_at_series_that_exist(prometheus: Prometheus) -> None:
    """An alert with a misspelt name or label never fires, and nobody notices."""
    until(prometheus.rules, "rules")
    wanted = {selector for rule in prometheus.rules() for selector in selectors(rule["query"])}
    assert len(wanted) > 15

    def without_data() -> set[str]:
        return {selector for selector in wanted if not prometheus.query(selector)}

    try:
        until(lambda: not without_data(), "data for every selector")
    except AssertionError as error:
        raise AssertionError(f"no such series: {without_data()}") from error


def test_a_healthy_simulated_pipeline_raises_one_critical_alert_about_its_source(
    prometheus: Prometheus,
) -> None:
    def active(state: str = "") -> set[str]:
        return {
            rule["name"]
            for rule in prometheus.rules()
            for alert in rule["alerts"]
            if alert["state"].startswith(state)
        }

    until(lambda: "BybitSourceNotLive" in active(), "the alert about simulated data")

    critical = {r["name"] for r in prometheus.rules() if r["labels"]["severity"] == "critical"}
    assert active("firing") & critical <= {"BybitSourceNotLive"}


def test_every_alert_describes_the_fault_and_links_its_section_of_the_guide(
    prometheus: Prometheus,
) -> None:
    until(prometheus.rules, "rules")
    anchors = set(headings(GUIDE.read_text()))

    for rule in prometheus.rules():
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"]), rule["name"]
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert "docs/howto/alerts.md" == path
        assert rule["name"].lower() == anchor
        assert anchor in anchors, f"{rule['name']} has no section in {path}"
        assert rule["labels"]["severity"] in {"critical", "warning"}
