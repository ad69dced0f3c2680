"""Reports of worker processes, for tests of those who read them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from flashsale.batching import Tally
from flashsale.metrics import WorkerMetrics
from flashsale.reporting import counts_of, histograms_of
from flashsale.reports import Report


def report(tally: Tally | None = None, *, age_seconds: float = 0.0, **other: Any) -> Report:
    """Of this process, which runs and is well but for what is given."""
    fields: dict[str, Any] = {
        "pid": os.getpid(),
        "at": time.monotonic() - age_seconds,
        "state": "running",
        "symptom": None,
        "is_consuming": True,
        "breaker": "closed",
        "counts": counts_of(tally or Tally()),
        "reasons": (tally or Tally()).reasons,
        "faults": [],
        "missing_queues": [],
        "histograms": histograms_of(WorkerMetrics()),
    }
    return Report(**fields | other)


def ended_pid() -> int:
    """The id of a process that runs no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
