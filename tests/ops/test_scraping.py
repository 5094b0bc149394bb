"""A real Prometheus discovers every process through ``/targets`` and reads its metrics."""

from tests.ops.prometheus import Prometheus, promtool
from tests.system.pipeline import Pipeline, kill, until

PROMISED = {
    "connector_connected": ("gauge", {"connector"}),
    "connector_connects_total": ("counter", {"connector", "result"}),
    "connector_reconnects_total": ("counter", {"connector", "reason"}),
    "connector_messages_total": ("counter", {"connector", "stream"}),
    "connector_frames_invalid_total": ("counter", {"connector", "reason"}),
    "connector_topics": ("gauge", {"connector", "state"}),
    "connector_ping_rtt_seconds": ("histogram", {"connector"}),
    "connector_last_message_timestamp_seconds": ("gauge", {"connector"}),
    "exchange_latency_seconds": ("histogram", {"connector", "stream"}),
    "bus_latency_seconds": ("histogram", {"process"}),
    "metric_latency_seconds": ("histogram", {"process"}),
    "bus_messages_lost_total": ("counter", {"process", "connector"}),
    "worker_messages_total": ("counter", {"process", "stream"}),
    "trades_total": ("counter", {"process"}),
    "trade_duplicates_total": ("counter", {"process"}),
    "book_gaps_total": ("counter", {"process", "reason"}),
    "book_resyncs_total": ("counter", {"process", "result"}),
    "books": ("gauge", {"process", "state"}),
    "densities_total": ("counter", {"process", "event"}),
    "metrics_published_total": ("counter", {"process", "kind"}),
    "process_up": ("gauge", {"process"}),
    "process_flapping": ("gauge", {"process"}),
    "process_restarts_total": ("counter", {"process", "reason"}),
    "source_info": ("gauge", {"source"}),
    "mid_price": ("gauge", {"category", "symbol"}),
    "spread_bps": ("gauge", {"category", "symbol"}),
    "imbalance_ratio": ("gauge", {"category", "symbol", "levels"}),
    "trades_per_minute": ("gauge", {"category", "symbol", "window"}),
    "volume_delta": ("gauge", {"category", "symbol", "window"}),
}
"""Type and labels by name, without the prefix. Dashboards of users rely on them."""


def test_every_process_is_discovered_and_up(pipeline: Pipeline, prometheus: Prometheus) -> None:
    expected = {(entry["process"], entry["role"], "up") for entry in pipeline.status()["processes"]}

    def seen() -> set[tuple[str, str, str]]:
        return {
            (target["labels"]["process"], target["labels"]["role"], target["health"])
            for target in prometheus.targets()
        }

    until(lambda: seen() == expected, f"{expected} up")
    roles = {role for _, role, _ in expected}
    assert {"supervisor", "forwarder", "trades", "orderbook", "simulator", "connector"} == roles


def test_every_promised_metric_has_its_type_and_labels(prometheus: Prometheus) -> None:
    missing = dict(PROMISED)

    def all_there() -> bool:
        for name, (kind, labels) in list(missing.items()):
            sample = f"bybit_pipeline_{name}" + ("_bucket" if kind == "histogram" else "")
            found = prometheus.query(sample)
            types = prometheus.types(f"bybit_pipeline_{name}")
            if types == {kind} and found and all(labels <= set(have) for have, _ in found):
                del missing[name]
        return not missing

    try:
        until(all_there, "every promised name")
    except AssertionError as error:
        raise AssertionError(f"missing, or of another type or labels: {missing}") from error


def test_promtool_accepts_the_metrics_of_every_process(pipeline: Pipeline) -> None:
    processes = pipeline.endpoints()["prometheus"]
    assert 6 == len(processes)

    complaints = {}
    for process, address in processes.items():
        status, page = pipeline.http(f"http://{address}/metrics")
        assert 200 == status
        checked = promtool("check", "metrics", text=page)
        if checked.returncode or checked.stdout or checked.stderr:
            complaints[process] = checked.stdout + checked.stderr

    assert {} == complaints


def test_a_restart_is_counted_under_the_name_of_the_process_that_ended(
    pipeline: Pipeline, prometheus: Prometheus
) -> None:
    """The supervisor counts it; its own name must not replace that of the worker."""
    counter = 'bybit_pipeline_process_restarts_total{process="trades-0",reason="signal"}'
    until(lambda: prometheus.query(counter), "the counter")
    ((labels, before),) = prometheus.query(counter)
    kill(pipeline.pid("trades-0"))

    until(lambda: [value for _, value in prometheus.query(counter)] == [before + 1], "a restart")

    assert "supervisor" == labels["role"]
    worker_again = 'up{process="trades-0"} == 1'
    until(lambda: pipeline.pid("trades-0") and prometheus.query(worker_again), "scraped again")
