"""What the workers of this machine, or container, say of themselves in their own files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flashsale.health import condition_of
from flashsale.reports import Report, read_reports, running_workers

# A batch of that long ago says nothing of the lag now.
_RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class ProcessStatus:
    """One worker process."""

    pid: int
    #: A :class:`~flashsale.health.Condition` by its value.
    state: str
    is_consuming: bool
    #: A :class:`~flashsale.batching.BreakerState` by its value.
    breaker: str
    #: Events it holds unacknowledged.
    in_flight: int
    #: Audit rows that wait in its memory for the next flush.
    audit_rows: int
    #: Why it cannot go on, where it cannot.
    symptom: str | None


@dataclass(frozen=True)
class WorkersStatus:
    """All worker processes here; their numbers are a second old at most."""

    processes: Sequence[ProcessStatus]
    #: From an event's timestamp to its order, for the events last done with; None where that was
    #: more than a minute ago.
    lag_seconds: float | None
    #: When the event that was last taken from the head of the queue was made; None if not known.
    last_event_at: float | None

    @property
    def in_flight(self) -> int:
        return sum(process.in_flight for process in self.processes)

    @property
    def audit_rows(self) -> int:
        return sum(process.audit_rows for process in self.processes)


def look_at_workers(state_folder: str | Path) -> WorkersStatus:
    """Read the reports of all workers that run here."""
    reports = [
        report for folder in running_workers(state_folder) for report in read_reports(folder)
    ]
    made_at = [report.counts.get("last_event_at", 0.0) for report in reports]
    return WorkersStatus(
        [_process(report) for report in reports],
        max(_recent_ages(reports), default=None),
        max(filter(None, made_at), default=None),
    )


def _recent_ages(reports: Sequence[Report]) -> list[float]:
    since = time.time() - _RECENT_SECONDS
    return [
        report.counts["last_event_age"]
        for report in reports
        if (made_at := report.counts.get("last_event_at"))
        and made_at + report.counts["last_event_age"] > since
    ]


def _process(report: Report) -> ProcessStatus:
    return ProcessStatus(
        report.pid,
        condition_of(report).value,
        report.is_consuming,
        report.breaker,
        int(report.counts.get("open", 0)),
        int(report.counts.get("audit_queue", 0)),
        report.symptom,
    )
