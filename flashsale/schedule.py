"""When the audit trail is flushed and reconciled: at intervals, and when a batch waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.base import BaseScheduler

from flashsale.settings import Settings

log = logging.getLogger(__name__)


class SizeTrigger:
    """Calls `flush` on a thread of its own, for the audit trail as soon as a batch of events waits.

    Apart from the scheduler, so that a burst neither waits for its next turn nor floods it.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._full = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="audit-size-trigger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def flush_soon(self) -> None:
        """Let a flush begin, after the one under way if there is one. Never waits. Thread-safe."""
        self._full.set()

    def stop(self) -> None:
        """Let a flush under way end. Harmless when repeated, or before a start."""
        self._stopping = True
        self._full.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._full.wait()
            self._full.clear()
            if self._stopping:
                return
            try:
                self._flush()
            except Exception as error:  # noqa: BLE001  # this thread's end would be noticed by none
                # Its text may hold a row's values.
                log.error("audit.flush_failed", extra={"cause": type(error).__name__})  # noqa: TRY400


class _SteadyJobs(MemoryJobStore):  # type: ignore[misc]  # APScheduler is untyped
    """Jobs whose turn comes though the clock is set back.

    APScheduler plans by the wall clock, and would wait until it is as late as planned again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked_at = datetime.min.replace(tzinfo=UTC)

    def get_due_jobs(self, now: datetime) -> list[Job]:
        set_back, self._asked_at = now < self._asked_at, now
        for job in self.get_all_jobs() if set_back else ():
            job.next_run_time = now
            self.update_job(job)
        due: list[Job] = super().get_due_jobs(now)
        return due


def add_interval_jobs(
    scheduler: BaseScheduler,
    settings: Settings,
    *,
    flush: Callable[[], object],
    reconcile: Callable[[], object],
) -> None:
    """Give the scheduler the jobs that run at intervals; a reconcile runs at its start as well."""
    scheduler.configure(
        executors={
            "default": ThreadPoolExecutor(1),
            # One and the same thread each time: its connection holds the reconciler's lock.
            "reconcile": ThreadPoolExecutor(1),
        },
        jobstores={"default": _SteadyJobs()},
        # A late run is a run all the same; several missed ones are one.
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    scheduler.add_job(flush, "interval", seconds=settings.audit_interval_seconds, id="audit-flush")
    scheduler.add_job(
        reconcile,
        "interval",
        seconds=settings.reconcile_interval_seconds,
        id="audit-reconcile",
        executor="reconcile",
        next_run_time=datetime.now(UTC),
    )
