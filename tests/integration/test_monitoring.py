"""The dashboard, the alert rules and the page of metrics speak of what the exporter exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flashsale.exporter.page import MetricsPage
from flashsale.exporter.queues import Level, QueueWatch
from flashsale.settings import Settings
from tests.conftest import skip_or_fail
from tests.support.processes import ServerNotInstalled
from tests.support.reports import report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "flashsale.json").read_text(encoding="utf-8"))
_NAME = re.compile(r"flashsale_[a-z_]+")
_MATCHER = re.compile(r'(\w+)=~?"([^"$]+)"')


def rendered() -> str:
    queues = QueueWatch(Settings())
    queues.levels = {"purchase": Level(0, 3), "purchase.XQ": Level(0, 0)}
    return MetricsPage(lambda: [report()], queues).render().body.decode()


FAMILIES = list(text_string_to_metric_families(rendered()))
SAMPLES = {sample.name for family in FAMILIES for sample in family.samples}
LABELS = {
    (name, value)
    for family in FAMILIES
    for sample in family.samples
    for name, value in sample.labels.items()
}
#: As docs/metrics.md names them: a counter by its sample, a histogram by its family.
NAMES = {f.name + "_total" if f.type == "counter" else f.name for f in FAMILIES}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


DASHBOARD_QUERIES = [text for text in strings(DASHBOARD) if _NAME.search(text)]
QUERIES = [*DASHBOARD_QUERIES, (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")]


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        skip_or_fail(ServerNotInstalled("promtool"))
    return str(found)


def run(*command: str, given: str = "") -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_page_lists_the_metrics_that_are_exported_and_no_others() -> None:
    listed = re.findall(r"^\| `(flashsale_\w+)` \|", PAGE, re.MULTILINE)

    assert set(listed) == NAMES
    assert len(listed) == len(NAMES)
    assert set(_NAME.findall(PAGE)) <= NAMES | SAMPLES


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_that_are_exported(query: str) -> None:
    assert set(_NAME.findall(query)) - SAMPLES == set()


@pytest.mark.parametrize("query", [*QUERIES, PAGE])
def test_a_query_selects_labels_that_there_are(query: str) -> None:
    """Those of Prometheus itself, job and instance, are not the exporter's."""
    chosen = {
        (label, value)
        for label, values in _MATCHER.findall(query)
        if label not in {"job", "instance"}
        for value in values.split("|")
    }

    assert chosen - LABELS == set()


def test_every_metric_but_the_housekeeping_is_on_the_dashboard() -> None:
    shown = set(_NAME.findall(" ".join(DASHBOARD_QUERIES)))
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}

    assert NAMES - stems == {
        "flashsale_acknowledgements_total",
        "flashsale_audit_recorded_total",
        "flashsale_audit_written_total",
        "flashsale_batches_total",
        "flashsale_broker_up",
        "flashsale_deliveries_total",
        "flashsale_last_commit_timestamp_seconds",
        "flashsale_purchase_queue_consumers",
        "flashsale_queue_consumers",
        "flashsale_shutdown_seconds",
    }


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    provisioned = (GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]

    assert targets
    for target in targets:
        assert f"uid: {target['datasource']['uid']}\n" in provisioned
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_alert_rules_are_valid(promtool: str) -> None:
    output = run(promtool, "check", "rules", str(PROMETHEUS / "rules.yml"))

    assert "14 rules found" in output


def test_each_alert_is_raised_by_its_cause_and_by_nothing_else(promtool: str) -> None:
    """The stories are in rules.test.yml."""
    run(promtool, "test", "rules", str(PROMETHEUS / "rules.test.yml"))


def test_each_alert_has_its_story() -> None:
    rules = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    stories = (PROMETHEUS / "rules.test.yml").read_text(encoding="utf-8")

    assert set(re.findall(r"alert: (\w+)", rules)) == set(re.findall(r'alertname="(\w+)"', stories))


def test_the_scrape_configuration_is_valid(promtool: str) -> None:
    run(promtool, "check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))


def test_prometheus_finds_nothing_to_improve_in_the_names_of_the_metrics(promtool: str) -> None:
    assert run(promtool, "check", "metrics", given=rendered()) == ""
