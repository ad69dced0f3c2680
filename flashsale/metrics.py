"""What a worker process counts beside its tally: sizes, times, faults, and what is odd.

Nothing here is done for each event of the usual kind, and nothing knows of Prometheus: a process
writes its numbers to a file each second (:mod:`flashsale.reports`), from which the exporter's own
process makes one page for all. docs/metrics.md says what each number means.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flashsale.errors import EventFault, StoreError, SystemFault, TransientFault

#: Upper bounds, in events; a batch has 5,000 at most.
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
#: Upper bounds, in seconds.
DURATIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
AGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200)

#: What the database is asked for.
OPERATIONS = ("confirm", "probe", "audit_flush", "reconcile")
#: What the timestamp of a batch's first event is found to be.
TIMESTAMPS = ("good", "missing", "unreadable", "skewed")
NO_SQLSTATE = "none"
OTHER_SQLSTATE = "other"
#: The faults that are expected, by kind and class of SQLSTATE: they count from zero.
EXPECTED_FAULTS = {
    "transient": ("40", "55", "57", NO_SQLSTATE),
    "system": (
        *("08", "0A", "25", "28", "3D", "3F", "42", "53", "54", "55", "57", "58", "F0", "XX"),
        NO_SQLSTATE,
    ),
    "event": ("22", "23"),
    "unclassified": (NO_SQLSTATE, OTHER_SQLSTATE),
}
_CLASSES = frozenset(state for states in EXPECTED_FAULTS.values() for state in states)


class Histogram:
    """How many of the observed values lie below each bound, and their sum. Thread-safe."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        #: By bucket, not cumulated; the last one is for what exceeds every bound.
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def report(self) -> dict[str, Any]:
        """Its numbers now, for JSON."""
        with self._lock:
            return {"counts": list(self._counts), "sum": self._sum}


@dataclass(frozen=True)
class WorkerMetrics:
    """The numbers of one process. Thread-safe."""

    batch_events: Histogram = field(default_factory=lambda: Histogram(SIZES))
    batch_seconds: Histogram = field(default_factory=lambda: Histogram(DURATIONS))
    event_age_seconds: Histogram = field(default_factory=lambda: Histogram(AGES))
    database_seconds: dict[str, Histogram] = field(
        default_factory=lambda: {operation: Histogram(DURATIONS) for operation in OPERATIONS}
    )
    #: By kind and class of SQLSTATE.
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Events by what is odd about them: ``unknown_keys``, and ``timestamps.`` with their state.
    events: Counter[str] = field(default_factory=Counter)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self, oddity: str) -> None:
        """Count an event in :attr:`events`."""
        with self._counting:
            self.events[oddity] += 1

    @contextmanager
    def database(self, operation: str) -> Iterator[None]:
        """Time the block as one of :data:`OPERATIONS`, and count the fault that leaves it."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:
            with self._counting:
                self.faults[_kind(error), _sqlstate_class(error)] += 1
            raise
        finally:
            self.database_seconds[operation].observe(time.perf_counter() - begun)


def _kind(error: Exception) -> str:
    if isinstance(error, TransientFault):
        return "transient"
    if isinstance(error, SystemFault):
        return "system"
    return "event" if isinstance(error, EventFault) else "unclassified"


def _sqlstate_class(error: Exception) -> str:
    state = error.sqlstate if isinstance(error, StoreError) else None
    if state is None:
        return NO_SQLSTATE
    return state[:2] if state[:2] in _CLASSES else OTHER_SQLSTATE
