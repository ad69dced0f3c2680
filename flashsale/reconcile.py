"""Completes the audit trail: a CONFIRMED row for each order that lacks one.

A process that dies between an order's commit and the flush of its audit queue leaves such orders.
They are among the newest, and so those are searched first.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import peewee

from flashsale.audit_rows import AuditEntry, report_refused, write_events
from flashsale.database import session
from flashsale.errors import StoreError
from flashsale.metrics import WorkerMetrics
from flashsale.models import ORDER_CONFIRMED, AuditEventType

log = logging.getLogger(__name__)

# Any constant will do that no other user of the database takes.
_LOCK_KEY = 0x666C_6173_6873_616C  # "flashsal"
# Orders younger than this may still be in the audit queue of the process that wrote them.
_SETTLING = timedelta(seconds=10)
# `created_at` is when the insert began; it was committed, and so visible, somewhat later.
_OVERLAP = timedelta(seconds=60)
_ORDERS_PER_WINDOW = 5_000
# A search through all the orders there ever were must not slow down a sale.
_HISTORY_SECONDS = 0.5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_WINDOW_END = """
SELECT created_at FROM orders WHERE created_at > {p} AND created_at < {p}
ORDER BY created_at LIMIT 1 OFFSET {p}
"""
_WINDOW_START = """
SELECT created_at FROM orders WHERE created_at > {p} AND created_at < {p}
ORDER BY created_at DESC LIMIT 1 OFFSET {p}
"""
_MISSING = """
SELECT CAST(orders.id AS text), CAST(orders.sale_id AS text), orders.user_id,
       orders.created_at
FROM orders
WHERE orders.created_at >= {p} AND orders.created_at <= {p} AND orders.status = {p}
  AND NOT EXISTS (
    SELECT 1 FROM order_audit_trail AS audit
    WHERE audit.sale_id = orders.sale_id AND audit.user_id = orders.user_id
      AND audit.event_type = {p}
  )
"""


class Reconciler:
    """Searches for orders without their audit row, and writes it.

    Of all processes on a database one searches, the holder of an advisory lock; it keeps a
    connection for that. When it dies the server frees the lock and another takes over, from where
    its own last search ended: a new one searches all orders once, from the newest back. Belongs to
    one thread.
    """

    def __init__(self, database: peewee.Database, metrics: WorkerMetrics | None = None) -> None:
        self._database = database
        self._metrics = metrics or WorkerMetrics()
        self._on_postgres = not isinstance(database, peewee.SqliteDatabase)
        self._leads = False
        self._is_failing = False
        self._leadership = ExitStack()
        #: All orders between these two have been searched.
        self._searched_from: datetime | None = None
        self._searched_to = _EPOCH
        #: Rows written since its start.
        self.written = 0

    def run(
        self, *, settling: timedelta = _SETTLING, history_seconds: float = math.inf
    ) -> int | None:
        """Search from where the last search ended up to `settling` ago, then what is older.

        The latter ends, for the next run to go on, when for so many seconds nothing was missing.

        Returns the number of rows written, or None where another process does the searching.

        Raises:
            StoreError: the next run begins where this one did.
        """
        try:
            if not self._lead():
                # Whether the holder of the lock gets anywhere is not known (its host may be gone
                # and the server not know it yet), so our own search stays where it ended.
                return None
            with session(self._database):
                until = self._server_time() - settling
                if self._searched_from is None:
                    self._searched_from = self._searched_to = until - _OVERLAP
                written = self._search(self._searched_to, until)
                written += self._search_history(self._searched_from, history_seconds)
        except StoreError:
            self.release()
            raise
        # Also where this goes back, with the server's clock: what follows has those times again.
        self._searched_to = until - _OVERLAP
        if written:
            log.info("audit.reconciled", extra={"rows": written})
        return written

    def run_quietly(self) -> None:
        """:meth:`run`, for schedulers: a failure is logged when it begins, and its end too."""
        try:
            with self._metrics.database("reconcile"):
                self.run(history_seconds=_HISTORY_SECONDS)
        except StoreError as error:
            if not self._is_failing:
                self._is_failing = True
                log.warning("audit.reconcile_failed", extra={"cause": str(error)})
            return
        if self._is_failing:
            self._is_failing = False
            log.info("audit.reconcile_resumed")

    def release(self) -> None:
        """Give up the lock and the connection that holds it, for another process to search."""
        leads, self._leads = self._leads, False
        with self._leadership:
            if leads and self._on_postgres:
                with suppress(StoreError), session(self._database):
                    self._rows("SELECT pg_advisory_unlock(%s)", _LOCK_KEY)

    def _lead(self) -> bool:
        if not self._leads:
            with session(self._database):
                self._leads = not self._on_postgres or self._take_lock()
                if self._leads:
                    # Keeps the connection open beyond this session, and with it the lock.
                    self._leadership.enter_context(self._database.connection_context())
        return self._leads

    def _take_lock(self) -> bool:
        ((taken,),) = self._rows("SELECT pg_try_advisory_lock(%s)", _LOCK_KEY)
        return bool(taken)

    def _server_time(self) -> datetime:
        """Now, by the clock that dates the orders; where ours is ahead, we would skip some."""
        if not self._on_postgres:
            return datetime.now(UTC)
        ((now,),) = self._rows("SELECT clock_timestamp()")
        return _moment(now)

    def _search(self, since: datetime, until: datetime) -> int:
        written = 0
        while since < until:
            end = self._rows(_WINDOW_END, since, until, _ORDERS_PER_WINDOW)
            to = _moment(end[0][0]) if end else until
            written += self._complete(since, to)
            # Window by window: one that fails must not have all before it searched again.
            self._searched_to = min(to, until - _OVERLAP)
            since = to
        return written

    def _search_history(self, until: datetime, seconds: float) -> int:
        written, spent = 0, 0.0
        while until > _EPOCH and spent < seconds:
            begun = time.monotonic()
            start = self._rows(_WINDOW_START, _EPOCH, until, _ORDERS_PER_WINDOW)
            since = _moment(start[0][0]) if start else _EPOCH
            completed = self._complete(since, until)
            if not completed:
                spent += time.monotonic() - begun
            written += completed
            self._searched_from = until = since
        return written

    def _complete(self, since: datetime, to: datetime) -> int:
        """Write what is missing for the orders of this time, both ends included; their number."""
        missing = self._rows(_MISSING, since, to, ORDER_CONFIRMED, AuditEventType.CONFIRMED)
        if not missing:
            return 0
        refused = write_events(
            self._database,
            [
                AuditEntry.confirmed(sale_id, user_id, order_id, _moment(created_at))
                for order_id, sale_id, user_id, created_at in missing
            ],
        )
        # Not searched for again before a process begins anew with all orders.
        report_refused(refused)
        self.written += len(missing) - len(refused)
        return len(missing) - len(refused)

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if self._on_postgres:
            sql = sql.format(p="%s")
        else:
            sql = sql.format(p="?")
            parameters = tuple(
                value.isoformat(" ") if isinstance(value, datetime) else value
                for value in parameters
            )
        rows: list[tuple[Any, ...]] = self._database.execute_sql(sql, parameters).fetchall()
        return rows


def _moment(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
