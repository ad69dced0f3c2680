"""Writes down, each second, what a worker process says of itself; see :mod:`flashsale.reports`."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flashsale.batching import Tally
from flashsale.metrics import WorkerMetrics
from flashsale.reports import Report, prepare, worker_folder, write_report

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0
_TALLY_TRIES = 20
_TALLY_PAUSE_SECONDS = 0.002
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Reporter:
    """Writes `report` to this process's file, at :meth:`start`, each second, and at :meth:`stop`.

    Where it cannot, a log line says so, once; the work goes on. To be started in the process that
    works, after the fork.
    """

    def __init__(self, state_folder: str, report: Callable[[], Report]) -> None:
        self._state_folder = state_folder
        self._report = report
        self._folder: Path | None = None
        self._is_prepared = False
        self._is_failing = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        folder = self._folder = worker_folder(self._state_folder)
        self._write(folder)
        self._thread = threading.Thread(
            target=self._run, args=(folder,), name="reports", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Write the last report. Harmless when repeated, or before a start."""
        self._stopping.set()
        if self._folder is not None and self._thread is not None:
            self._thread.join()
            self._write(self._folder)

    def _run(self, folder: Path) -> None:
        while not self._stopping.wait(_INTERVAL_SECONDS):
            self._write(folder)

    def _write(self, folder: Path) -> None:
        try:
            if not self._is_prepared:
                prepare(folder)
            write_report(folder, self._report())
        except Exception as error:  # noqa: BLE001  # this thread's end would pass for a standstill
            self._is_prepared = False
            if not self._is_failing:
                self._is_failing = True
                cause = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                log.warning("reports.unwritten", extra={"folder": str(folder), "cause": cause})
        else:
            self._is_prepared = True
            self._is_failing = False


def tally_now(tally: Tally) -> Tally:
    """A copy of one moment, though the consumer's thread goes on counting.

    One that is not conserved even so is given as it is.
    """
    now = _copy(tally)
    for _ in range(_TALLY_TRIES):
        # Twice the same: nothing was counted while it was read. Conserved: nor half counted.
        before, now = now, _copy(tally)
        if before == now and now.is_conserved:
            break
        time.sleep(_TALLY_PAUSE_SECONDS)
    return now


def counts_of(tally: Tally) -> dict[str, float]:
    """Its numbers by name."""
    return {name: number for name, number in vars(tally).items() if name != "reasons"}


def histograms_of(metrics: WorkerMetrics) -> dict[str, Any]:
    return {
        "batch_events": metrics.batch_events.report(),
        "batch_seconds": metrics.batch_seconds.report(),
        "event_age_seconds": metrics.event_age_seconds.report(),
    } | {
        f"database_seconds.{operation}": histogram.report()
        for operation, histogram in metrics.database_seconds.items()
    }


def resources() -> dict[str, float]:
    """What this process has of the system: memory, threads, open files. Empty but on Linux."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        open_files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return {}
    return {
        "resident_memory_bytes": int(pages) * _PAGE_BYTES,
        "threads": threading.active_count(),
        "open_files": open_files,
    }


def _copy(tally: Tally) -> Tally:
    return dataclasses.replace(tally, reasons=tally.reasons.copy())
