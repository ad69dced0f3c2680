"""Whether a worker lives, and whether it is ready, from its processes' reports.

For probes, which must be cheap and must not fail for what a restart does not mend: life is that
the loops move. Neither RabbitMQ nor PostgreSQL is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from flashsale.reports import STALE_SECONDS, Report, process_runs


class Condition(Enum):
    """What is known of a process from its last report."""

    RUNNING = "running"
    DRAINING = "draining"
    """It finishes what it has, and takes nothing more."""
    STOPPED = "stopped"
    STALLED = "stalled"
    """It is there and does not move."""
    GONE = "gone"
    """It has ended without a word."""


def condition_of(report: Report) -> Condition:
    if report.state == "stopped":
        return Condition.STOPPED
    if not process_runs(report.pid):
        return Condition.GONE
    if report.age_seconds > STALE_SECONDS:
        return Condition.STALLED
    return Condition(report.state)


def why_not_alive(reports: Iterable[Report]) -> list[str]:
    """What is wrong with the life of a worker, a line for each fault; empty where nothing is."""
    alive = [report for report in reports if report.state != "stopped"]
    if not alive:
        return ["no worker process has reported: is `dramatiq flashsale.actors` running?"]
    return [why for report in alive for why in _dead_because(report)]


def why_not_ready(reports: Sequence[Report]) -> list[str]:
    """Why a worker does not take all the work it could, a line for each cause; empty if it does.

    A worker is ready when each of its processes consumes all queues, and its database takes orders.
    """
    alive = [report for report in reports if report.state != "stopped"]
    return why_not_alive(reports) + [why for report in alive for why in _idle_because(report)]


def _dead_because(report: Report) -> Iterable[str]:
    condition = condition_of(report)
    if condition is Condition.GONE:
        yield f"process {report.pid} has ended without a stop"
    elif condition is Condition.STALLED:
        yield f"process {report.pid} has not moved for {report.age_seconds:.0f} s"
    elif report.symptom is not None:
        yield f"process {report.pid} cannot go on: {report.symptom}"


def _idle_because(report: Report) -> Iterable[str]:
    if report.state == "draining":
        yield f"process {report.pid} is stopping"
    elif report.breaker == "open":
        where = "work.suspended or work.waiting in its log"
        yield f"process {report.pid} waits for the database: see {where}"
    elif report.missing_queues:
        queues = ", ".join(report.missing_queues)
        yield f"process {report.pid} does not consume {queues}: see broker.queue_lost in its log"
    elif not report.is_consuming:
        yield f"process {report.pid} does not consume: see broker.unreachable in its log"
