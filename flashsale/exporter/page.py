"""The page of ``/metrics``: every process's report, summed, in Prometheus's format.

docs/metrics.md says what each metric means and when to worry.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import flashsale
from flashsale.batching import BreakerState
from flashsale.exporter.queues import QueueWatch
from flashsale.exporter.server import Page
from flashsale.health import Condition, condition_of
from flashsale.metrics import AGES, DURATIONS, EXPECTED_FAULTS, OPERATIONS, SIZES, TIMESTAMPS
from flashsale.purchases import Reason
from flashsale.reports import Report, oldest_at_most

# Metric, number of the report, and what it says.
_COUNTERS = (
    ("redelivered", "redelivered", "Deliveries that RabbitMQ had delivered before"),
    (
        "not_persistent",
        "not_persistent",
        "Deliveries that a restart of RabbitMQ would have lost: their delivery_mode is not 2",
    ),
    ("unknown_keys", "unknown_keys", "Deliveries with keys that say nothing to this version"),
    ("stale_verdicts", "stale", "Verdicts that came after their channel was lost: redelivered"),
    ("acknowledgements", "acknowledgements", "Frames that acknowledged, each one event or many"),
    ("batches", "batches", "Batches handed to worker threads"),
    ("batches_held", "held", "Batches of which something is tried again"),
    ("audit_recorded", "audit_recorded", "Audit rows queued for a flush"),
    ("audit_written", "audit_written", "Audit rows written from the queue"),
    ("audit_dropped", "audit_dropped", "Audit rows dropped from a full queue, to be reconciled"),
    ("audit_refused", "audit_refused", "Audit rows that the database refused"),
    ("audit_reconciled", "audit_reconciled", "Audit rows that the reconciler found missing"),
    (
        "database_outage_seconds",
        "outage_seconds",
        "Time in which the database took no orders, of all processes together",
    ),
    (
        "dead_letter_failures",
        "failed_letter_attempts",
        "Attempts to write dead letters that RabbitMQ did not confirm",
    ),
    (
        "broker_failures",
        "failed_channels",
        "Attempts at a channel that failed: no connection, or a queue that cannot be used",
    ),
    ("log_lines_dropped", "log_lines_dropped", "Log lines dropped because nobody read the log"),
)
_GAUGES = (
    ("audit_queue_rows", "audit_queue", "Audit rows that wait for a flush"),
    ("resident_memory_bytes", "resident_memory_bytes", "Memory of the processes"),
    ("threads", "threads", "Threads of the processes"),
    ("open_files", "open_files", "Open file descriptors of the processes"),
)
_HISTOGRAMS = (
    ("batch_events", SIZES, "Events in a batch"),
    ("batch_seconds", DURATIONS, "From the hand-out of a batch to the verdicts on its events"),
    ("event_age_seconds", AGES, "From an event's timestamp to its verdict, one event a batch"),
)


class MetricsPage(Collector):
    """Renders the reports that `reports` finds. Thread-safe.

    A process's last numbers stay on the page when it has ended, so that no counter ever falls.
    """

    def __init__(self, reports: Callable[[], Iterable[Report]], queues: QueueWatch) -> None:
        self._read = reports
        self._queues = queues
        self._last: dict[int, Report] = {}
        self._rendering = threading.Lock()
        self._started_at = time.time()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> Page:
        with self._rendering:
            return Page(200, CONTENT_TYPE_LATEST, generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        self._last |= {report.pid: report for report in self._read()}
        reports = list(self._last.values())
        conditions = [condition_of(report) for report in reports]
        ended = (Condition.STOPPED, Condition.GONE)
        alive = [
            report
            for report, condition in zip(reports, conditions, strict=True)
            if condition not in ended
        ]
        yield from self._about_processes(alive, conditions)
        yield from _conservation(reports, alive)
        for name, number, meaning in _COUNTERS:
            yield CounterMetricFamily(f"flashsale_{name}", meaning, _sum(reports, number))
        for name, number, meaning in _GAUGES:
            yield GaugeMetricFamily(f"flashsale_{name}", meaning, _sum(alive, number))
        reconnects = sum(max(0, report.counts.get("channels", 0) - 1) for report in reports)
        yield CounterMetricFamily(
            "flashsale_broker_reconnects", "Channels opened after the first", reconnects
        )
        last = max((report.counts.get("last_commit_at", 0) for report in reports), default=0)
        yield GaugeMetricFamily(
            "flashsale_last_commit_timestamp_seconds", "When an order was last written", last
        )
        yield GaugeMetricFamily(
            "flashsale_shutdown_seconds",
            "How long the processes that have stopped took for it, at most",
            max((report.counts.get("shutdown_seconds", 0) for report in reports), default=0),
        )
        yield _by_label(
            CounterMetricFamily(
                "flashsale_timestamps", "Timestamps, one event a batch", labels=["state"]
            ),
            {state: _sum(reports, f"timestamps.{state}") for state in TIMESTAMPS},
        )
        yield _faults(reports)
        for name, bounds, meaning in _HISTOGRAMS:
            family = HistogramMetricFamily(f"flashsale_{name}", meaning)
            _add_histogram(family, (), bounds, reports, name)
            yield family
        family = HistogramMetricFamily(
            "flashsale_database_seconds", "Time in the database", labels=["operation"]
        )
        for operation in OPERATIONS:
            name = f"database_seconds.{operation}"
            _add_histogram(family, (operation,), DURATIONS, reports, name)
        yield family
        yield from self._about_queues(reports)

    def _about_processes(
        self, alive: Sequence[Report], conditions: Sequence[Condition]
    ) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "flashsale_build_info", "Always 1", labels=["version", "python_version"]
        )
        build.add_metric((flashsale.__version__, platform.python_version()), 1)
        yield build
        yield GaugeMetricFamily(
            "flashsale_start_timestamp_seconds", "When this worker started", self._started_at
        )
        processes = Counter(condition.value for condition in conditions)
        yield _by_label(
            GaugeMetricFamily("flashsale_processes", "Processes by state", labels=["state"]),
            {condition.value: processes[condition.value] for condition in Condition},
        )
        yield GaugeMetricFamily(
            "flashsale_consuming_processes",
            "Processes that consume",
            sum(report.is_consuming for report in alive),
        )
        breakers = Counter(report.breaker for report in alive)
        yield _by_label(
            GaugeMetricFamily(
                "flashsale_breakers", "Processes by state of the breaker", labels=["state"]
            ),
            {state.value: breakers[state.value] for state in BreakerState},
        )

    def _about_queues(self, reports: Sequence[Report]) -> Iterator[Metric]:
        levels = self._queues.levels
        yield GaugeMetricFamily(
            "flashsale_broker_up",
            "Whether RabbitMQ answers the exporter",
            int(levels is not None),
        )
        if not levels:
            return
        purchases = {
            queue: levels[queue] for queue in self._queues.purchase_queues if queue in levels
        }
        ready, consumers = dict[str, float](), dict[str, float]()
        if purchases:
            ready["purchase"] = sum(level.ready for level in purchases.values())
            # One that is missing is consumed by nobody, however well the others are.
            is_whole = len(purchases) == len(self._queues.purchase_queues)
            fewest = min(level.consumers for level in purchases.values())
            consumers["purchase"] = fewest if is_whole else 0
        if letters := levels.get(self._queues.dead_letter_queue):
            ready["dead_letter"], consumers["dead_letter"] = letters
        for name, meaning, values in (
            ("flashsale_queue_messages", "Ready messages, of all purchase queues", ready),
            ("flashsale_queue_consumers", "Consumers, of the one with fewest", consumers),
        ):
            yield _by_label(GaugeMetricFamily(name, meaning, labels=["queue"]), values)
        for name, meaning, values in (
            (
                "flashsale_purchase_queue_messages",
                "Ready messages of each purchase queue",
                {queue: float(level.ready) for queue, level in purchases.items()},
            ),
            (
                "flashsale_purchase_queue_consumers",
                "Consumers of each purchase queue",
                {queue: float(level.consumers) for queue, level in purchases.items()},
            ),
        ):
            yield _by_label(GaugeMetricFamily(name, meaning, labels=["name"]), values)
        last = max((report.counts.get("last_event_at", 0) for report in reports), default=0)
        # Of several queues, which of them that one came from is not known.
        known = last if len(self._queues.purchase_queues) == 1 else None
        waiting = sum(level.ready for level in purchases.values())
        if purchases and (oldest := oldest_at_most(waiting, known, time.time())) is not None:
            yield GaugeMetricFamily(
                "flashsale_queue_oldest_seconds",
                "Age of the purchase that has waited longest: not more than this",
                oldest,
            )


def _conservation(reports: Sequence[Report], alive: Sequence[Report]) -> Iterator[Metric]:
    """The law: deliveries are settled, returned, or in flight."""
    delivered, repeats = _sum(reports, "delivered"), _sum(reports, "repeats")
    done, dead = _sum(reports, "settled"), _sum(reports, "dead_lettered")
    in_flight = _sum(alive, "open")
    # What a process had open when it ended is back in the queue.
    returned = _sum(reports, "returned") + _sum(reports, "open") - in_flight
    yield CounterMetricFamily("flashsale_deliveries", "Events that arrived", delivered)
    yield _by_label(
        CounterMetricFamily("flashsale_settled", "Deliveries done with", labels=["outcome"]),
        {"confirmed": done - repeats, "duplicate": repeats, "dead_lettered": dead},
    )
    yield CounterMetricFamily("flashsale_returned", "Deliveries back in the queue", returned)
    yield GaugeMetricFamily("flashsale_in_flight", "Deliveries open", in_flight)
    yield GaugeMetricFamily(
        "flashsale_conservation_error",
        "Deliveries that are neither settled, returned nor in flight: not 0 is a defect",
        delivered - done - dead - returned - in_flight,
    )
    reasons = Counter({reason.value: 0 for reason in Reason})
    for report in reports:
        reasons.update(report.reasons)
    yield _by_label(
        CounterMetricFamily("flashsale_dead_letters", "Dead letters", labels=["reason"]), reasons
    )


def _faults(reports: Iterable[Report]) -> Metric:
    faults = Counter({(kind, state): 0 for kind, all_ in EXPECTED_FAULTS.items() for state in all_})
    for report in reports:
        for kind, state, count in report.faults:
            faults[kind, state] += count
    family = CounterMetricFamily(
        "flashsale_database_faults", "Failed calls of the database", labels=["kind", "sqlstate"]
    )
    for labels, count in faults.items():
        family.add_metric(labels, count)
    return family


def _add_histogram(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[float],
    reports: Iterable[Report],
    name: str,
) -> None:
    counts, total = [0] * (len(bounds) + 1), 0.0
    for report in reports:
        histogram = report.histograms.get(name)
        # Other buckets are of another version, from before a reload.
        if histogram is None or len(histogram["counts"]) != len(counts):
            continue
        counts = [sum(pair) for pair in zip(counts, histogram["counts"], strict=True)]
        total += histogram["sum"]
    ends = [str(float(bound)) for bound in bounds] + ["+Inf"]
    family.add_metric(labels, list(zip(ends, accumulate(counts), strict=True)), total)


def _by_label(
    family: CounterMetricFamily | GaugeMetricFamily, values: dict[str, float] | Counter[str]
) -> Metric:
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _sum(reports: Iterable[Report], number: str) -> float:
    return sum(report.counts.get(number, 0) for report in reports)
