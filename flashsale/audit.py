"""The audit trail: a bounded queue in memory, flushed to its table in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import peewee

from flashsale.audit_rows import AuditEntry, report_refused, write_events
from flashsale.errors import StoreError
from flashsale.metrics import WorkerMetrics

log = logging.getLogger(__name__)

# One statement takes this many rows at most, however long the queue has grown.
_ROWS_PER_STATEMENT = 1_000


class AuditTrail:
    """Takes audit events without ever making the caller wait for the database, or fail.

    :meth:`flush` is called once an interval by a scheduler, and at once, through `on_full`, when
    `batch_size` events wait. Thread-safe.

    The queue is bounded by `limit`. Events beyond it are dropped and counted: the reconciler
    writes a missing CONFIRMED row from the order itself, once the database answers again.
    """

    def __init__(
        self,
        database: peewee.Database,
        *,
        batch_size: int = 100,
        limit: int = 100_000,
        on_full: Callable[[], object] = lambda: None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._database = database
        self._metrics = metrics or WorkerMetrics()
        self._batch_size = batch_size
        self._limit = limit
        #: Called, without waiting for it, when `batch_size` events wait; must not block.
        self.on_full = on_full
        self._waiting: deque[AuditEntry] = deque()
        self._recording = threading.Lock()
        self._flushing = threading.Lock()
        self._is_failing = False
        self._is_dropping = False
        #: Rows handed to the database and committed, including those it had already.
        self.written = 0
        #: Events queued, those beyond the limit among them.
        self.recorded = 0
        #: Events that found the queue at its limit.
        self.dropped = 0
        #: When a flush last wrote, failed, or found nothing to do, by ``time.monotonic()``.
        self.moved_at = time.monotonic()
        #: Rows that the database refused while it took others.
        self.refused = 0

    def __len__(self) -> int:
        """Events that wait for a flush."""
        return len(self._waiting)

    def record(self, events: Iterable[AuditEntry]) -> None:
        """Queue events for the next flush."""
        with self._recording:
            before = len(self._waiting)
            self._waiting.extend(events)
            self.recorded += len(self._waiting) - before
            excess = len(self._waiting) - self._limit
            for _ in range(excess):
                self._waiting.pop()
            self.dropped += max(excess, 0)
            first_dropped = excess > 0 and not self._is_dropping
            self._is_dropping = self._is_dropping or first_dropped
        if first_dropped:
            log.error("audit.queue_full", extra={"limit": self._limit, "dropped": excess})
        if len(self._waiting) >= self._batch_size:
            self.on_full()

    def flush(self) -> int:
        """Write what waits. Returns the number of events written.

        One flush runs at a time; a second caller waits for it and then takes what came since.
        An event leaves the queue only after its row is committed, or is refused while others of
        the same flush are taken.

        Raises:
            StoreError: what was not written stays in the queue.
        """
        written = 0
        with self._flushing:
            while self._waiting:
                with self._recording:
                    events = list(islice(self._waiting, _ROWS_PER_STATEMENT))
                with self._metrics.database("audit_flush"):
                    refused = write_events(self._database, events)
                if len(refused) == len(events):
                    # As likely the table's fault as that of each of them: nothing is concluded.
                    raise refused[0]
                report_refused(refused)
                with self._recording:
                    # Only this thread takes from the left, and `record` drops from the right only
                    # what it has just added, so these are the very events that were written.
                    for _ in events:
                        self._waiting.popleft()
                    self._is_dropping = False
                written += len(events) - len(refused)
                self.written += len(events) - len(refused)
                self.refused += len(refused)
                self.moved_at = time.monotonic()
        return written

    def flush_quietly(self) -> int:
        """:meth:`flush`, for schedulers: a failure is logged when it begins and when it ends."""
        try:
            written = self.flush()
        except StoreError as error:
            self.moved_at = time.monotonic()
            if not self._is_failing:
                self._is_failing = True
                log.warning("audit.flush_failed", extra={"cause": str(error)})
            return 0
        self.moved_at = time.monotonic()
        if written and self._is_failing:
            self._is_failing = False
            log.info("audit.flush_resumed", extra={"rows": written})
        return written
