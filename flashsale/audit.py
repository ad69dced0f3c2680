"""The audit trail: a bounded queue in memory, flushed to its table in batches."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import islice
from operator import attrgetter

import msgspec
import peewee

from flashsale.database import session
from flashsale.errors import StoreError
from flashsale.ids import audit_id, audit_id_without_order
from flashsale.isolation import RowFault, isolate
from flashsale.metrics import WorkerMetrics
from flashsale.models import AuditEventType
from flashsale.purchases import Purchase
from flashsale.statements import REPLICATED, execute, lines

log = logging.getLogger(__name__)

# A row of a sale that was deleted meanwhile has nothing to refer to: the join leaves it out,
# where a foreign key error would keep all others from being written.
_INSERT_POSTGRES = """
INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)
SELECT event.id, event.sale_id, event.user_id, event.event_type, event.metadata::jsonb
FROM unnest(string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n')::uuid[],
            string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n'))
     AS event (id, sale_id, user_id, event_type, metadata)
JOIN sales ON sales.id = event.sale_id
ORDER BY event.id
ON CONFLICT DO NOTHING
"""
_INSERT_SQLITE = """
INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)
SELECT json_extract(event.value, '$[0]'), sales.id, json_extract(event.value, '$[2]'),
       json_extract(event.value, '$[3]'), json_extract(event.value, '$[4]')
FROM json_each(?) AS event
JOIN sales ON sales.id = json_extract(event.value, '$[1]')
WHERE true
ON CONFLICT DO NOTHING
"""
# One statement takes this many rows at most, however long the queue has grown.
_ROWS_PER_STATEMENT = 1_000
_BY_ID = attrgetter("id")
_COLUMNS = [attrgetter(name) for name in ("id", "sale_id", "user_id", "event_type", "metadata")]
# So many rows refused and none taken: the table refuses all, and asking for each would cost a
# statement a row, again and again.
_PATIENCE = 16


class AuditEntry(msgspec.Struct, frozen=True, gc=False):
    """One row of the trail. Its id follows from what it says, so writing it twice is harmless."""

    id: str
    sale_id: str
    user_id: str
    event_type: str
    metadata: str

    @classmethod
    def confirmed(
        cls,
        sale_id: str,
        user_id: str,
        order_id: str,
        processed_at: datetime,
        occurred_at: datetime | None = None,
    ) -> AuditEntry:
        """An order was written; its purchase was made at `occurred_at`, where that is known."""
        since = f',"occurredAt":"{occurred_at.isoformat()}"' if occurred_at is not None else ""
        metadata = f'{{"orderId":"{order_id}","processedAt":"{_instant(processed_at)}"{since}}}'
        id_ = audit_id(order_id, AuditEventType.CONFIRMED)
        return cls(id_, sale_id, user_id, AuditEventType.CONFIRMED, metadata)

    @classmethod
    def failed(cls, purchase: Purchase, error: StoreError, failed_at: datetime) -> AuditEntry:
        """The database kept a purchase from being written at its first attempt."""
        metadata = json.dumps(
            {"error": str(error), "errorCode": error.sqlstate, "failedAt": _instant(failed_at)}
        )
        type_ = AuditEventType.FAILED_DB
        id_ = audit_id_without_order(purchase.sale_id, purchase.user_id, type_)
        return cls(id_, purchase.sale_id, purchase.user_id, type_, metadata)


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


def write_events(database: peewee.Database, events: Sequence[AuditEntry]) -> list[RowFault]:
    """Insert rows that are not there yet, in one statement; committed when this returns.

    Returns the faults of the rows that the database refuses; all others are written.

    Raises:
        StoreError: what was written before is not known, or the table refuses all; repeating is
            harmless.
    """
    with session(database):
        faults = isolate(
            partial(_insert, database), events, id_of=_BY_ID, order=_BY_ID, patience=_PATIENCE
        )
        return [fault for _, fault in faults]


def report_refused(faults: Sequence[RowFault]) -> None:
    """Log that rows of the trail are missing for good, if any are."""
    if faults:
        causes = dict(Counter(str(fault) for fault in faults))
        log.error("audit.rows_refused", extra={"rows": len(faults), "causes": causes})


def _insert(database: peewee.Database, events: Sequence[AuditEntry]) -> None:
    with session(database):
        if isinstance(database, peewee.SqliteDatabase):
            execute(
                database,
                _INSERT_SQLITE,
                [json.dumps([msgspec.structs.astuple(event) for event in events])],
            )
        else:
            columns = [lines([get(event) for event in events]) for get in _COLUMNS]
            written = execute(database, _INSERT_POSTGRES, columns).rowcount
            if written < len(events):
                # Those that are there already may be of a commit that is not replicated yet.
                execute(database, f"SELECT {REPLICATED}")


def now() -> datetime:
    return datetime.now(UTC)


@lru_cache(maxsize=16)  # a batch has one
def _instant(moment: datetime) -> str:
    """As JavaScript writes it, and so as the rows of the API and of the old worker have it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
