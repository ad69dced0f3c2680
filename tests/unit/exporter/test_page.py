"""The page of metrics, from the reports of processes."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flashsale.batching import Tally
from flashsale.exporter.page import MetricsPage
from flashsale.exporter.queues import Level, QueueWatch
from flashsale.metrics import WorkerMetrics
from flashsale.reporting import histograms_of
from flashsale.reports import Report
from flashsale.settings import Settings
from tests.support.reports import ended_pid, report

Samples = dict[tuple[str, tuple[str, ...]], float]


class Bench:
    """A page, and the reports that it finds."""

    def __init__(self, *reports: Report, queues: tuple[str, ...] = ("purchase",)) -> None:
        self.reports = list(reports)
        self.queues = QueueWatch(Settings(purchase_queues=queues))
        self._page = MetricsPage(lambda: self.reports, self.queues)

    def samples(self) -> Samples:
        """Values by name and labels' values."""
        text = self._page.render().body.decode()
        return {
            (sample.name.removeprefix("flashsale_"), tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def tally() -> Tally:
    """Of a process that has 4 events in flight."""
    return Tally(
        delivered=20, settled=12, repeats=2, dead_lettered=3, returned=1, open=4, channels=3
    )


def law(samples: Samples) -> bool:
    settled = sum(value for (name, _), value in samples.items() if name == "settled_total")
    return samples["deliveries_total", ()] == (
        settled + samples["returned_total", ()] + samples["in_flight", ()]
    )


def test_the_processes_are_summed_and_the_law_of_conservation_holds() -> None:
    samples = Bench(report(tally()), report(tally(), pid=1)).samples()

    assert samples["deliveries_total", ()] == 40
    assert samples["settled_total", ("confirmed",)] == 20
    assert samples["settled_total", ("duplicate",)] == 4
    assert samples["settled_total", ("dead_lettered",)] == 6
    assert samples["in_flight", ()] == 8
    assert samples["broker_reconnects_total", ()] == 4
    assert samples["conservation_error", ()] == 0
    assert law(samples)


def test_what_a_killed_process_had_in_flight_is_back_in_the_queue() -> None:
    samples = Bench(report(tally()), report(tally(), pid=ended_pid())).samples()

    assert samples["processes", ("gone",)] == 1
    assert samples["in_flight", ()] == 4
    assert samples["returned_total", ()] == 6
    assert law(samples)


def test_an_event_that_went_astray_shows() -> None:
    assert Bench(report(Tally(delivered=5, settled=3))).samples()["conservation_error", ()] == 2


def test_no_counter_falls_when_a_process_and_its_report_are_gone() -> None:
    bench = Bench(report(tally()), report(tally(), pid=1))
    before = bench.samples()
    del bench.reports[1]

    assert bench.samples()["deliveries_total", ()] == before["deliveries_total", ()]


def test_all_labels_are_there_from_the_start() -> None:
    """A rate over a counter that appears with its first event does not see that event."""
    samples = Bench().samples()

    assert {labels for name, labels in samples if name == "dead_letters_total"} > {("poison",)}
    assert samples["settled_total", ("duplicate",)] == 0
    assert samples["database_faults_total", ("system", "53")] == 0
    assert samples["processes", ("stalled",)] == 0
    assert samples["breakers", ("open",)] == 0
    assert samples["database_seconds_count", ("reconcile",)] == 0


def test_histograms_are_summed_and_cumulated() -> None:
    metrics = WorkerMetrics()
    for size in (1, 2, 500):
        metrics.batch_events.observe(size)
    one = report(histograms=histograms_of(metrics))
    samples = Bench(one, report(pid=1, histograms=histograms_of(metrics))).samples()

    assert samples["batch_events_bucket", ("1.0",)] == 2
    assert samples["batch_events_bucket", ("2.0",)] == 4
    assert samples["batch_events_bucket", ("+Inf",)] == 6
    assert samples["batch_events_sum", ()] == 1_006


def test_numbers_of_another_version_are_left_out() -> None:
    """Dramatiq's master reloads on SIGHUP, and its old processes' reports are still there."""
    other = {"batch_events": {"counts": [1, 2], "sum": 3}}
    samples = Bench(report(counts={}, histograms=other)).samples()

    assert samples["batch_events_count", ()] == 0
    assert samples["processes", ("running",)] == 1


def test_faults_and_reasons_are_summed() -> None:
    counted = Tally(delivered=2, dead_lettered=2)
    counted.reasons["json"] = 2
    faults = [("transient", "40", 1)]
    samples = Bench(report(counted, faults=faults), report(counted, pid=1, faults=faults)).samples()

    assert samples["dead_letters_total", ("json",)] == 4
    assert samples["database_faults_total", ("transient", "40")] == 2


def test_what_is_odd_about_events_is_summed_and_there_from_the_start() -> None:
    odd = {"unknown_keys": 2, "not_persistent": 3, "timestamps.skewed": 4}
    samples = Bench(report(counts=odd), report(pid=1, counts=odd)).samples()

    assert samples["unknown_keys_total", ()] == 4
    assert samples["not_persistent_total", ()] == 6
    assert samples["timestamps_total", ("skewed",)] == 8
    assert samples["timestamps_total", ("missing",)] == 0


def test_several_queues_are_summed_and_the_one_with_fewest_consumers_counts() -> None:
    """So the alerts on depth and on consumers hold for any number of them."""
    bench = Bench(queues=("a", "b"))
    bench.queues.levels = {"a": Level(7, 3), "b": Level(1, 2), "purchase.XQ": Level(2, 1)}

    samples = bench.samples()

    assert samples["queue_messages", ("purchase",)] == 8
    assert samples["queue_consumers", ("purchase",)] == 2
    assert samples["queue_messages", ("dead_letter",)] == 2
    each = {name: value for name, value in samples.items() if name[0].startswith("purchase_queue")}
    assert each == {
        ("purchase_queue_messages", ("a",)): 7,
        ("purchase_queue_messages", ("b",)): 1,
        ("purchase_queue_consumers", ("a",)): 3,
        ("purchase_queue_consumers", ("b",)): 2,
    }
    assert ("queue_oldest_seconds", ()) not in samples

    bench.queues.levels = {"a": Level(7, 3)}
    samples = bench.samples()
    assert samples["queue_messages", ("purchase",)] == 7
    assert samples["queue_consumers", ("purchase",)] == 0


def test_what_waits_is_not_older_than_what_was_taken_last() -> None:
    bench = Bench(
        report(counts={"last_event_at": time.time() - 90}),
        report(counts={"last_event_at": time.time() - 30}, pid=1),
    )
    bench.queues.levels = {"purchase": Level(7, 3)}
    assert bench.samples()["queue_oldest_seconds", ()] == pytest.approx(30, abs=5)

    bench.queues.levels = {"purchase": Level(0, 3)}
    assert bench.samples()["queue_oldest_seconds", ()] == 0

    bench = Bench(report())
    bench.queues.levels = {"purchase": Level(7, 3)}
    assert ("queue_oldest_seconds", ()) not in bench.samples()


def test_while_rabbitmq_is_away_nothing_is_said_of_its_queues() -> None:
    bench = Bench()
    bench.queues.levels = {"purchase": Level(7, 3)}
    samples = bench.samples()
    assert samples["broker_up", ()] == 1
    assert samples["queue_messages", ("purchase",)] == 7
    assert samples["queue_consumers", ("purchase",)] == 3

    bench.queues.levels = None
    samples = bench.samples()
    assert samples["broker_up", ()] == 0
    assert not [name for name, _ in samples if name.startswith("queue")]
