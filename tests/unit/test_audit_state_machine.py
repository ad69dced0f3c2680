"""The audit queue through any order of records and flushes, on a database that fails at will."""

from __future__ import annotations

import sqlite3
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flashsale import audit
from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.errors import StoreError
from flashsale.ids import new_order_ids
from tests.support.stores import Store, open_store

BATCH_SIZE = 4
LIMIT = 12
ROWS_PER_STATEMENT = 5


class Fault(Enum):
    """What happens to one statement of a flush."""

    REFUSED = "nothing of it is written"
    LOST_REPLY = "all of it is written, and nobody is told"


class TrailMachine(RuleBasedStateMachine):
    """`waiting` and `rows` say what should be in the queue and in the table."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.database = store.database
        self.store = store
        self.sale_id = store.add_sale()
        self.triggers = 0
        self.trail = AuditTrail(
            self.database, batch_size=BATCH_SIZE, limit=LIMIT, on_full=self.trigger
        )
        self.waiting: list[AuditEntry] = []
        self.rows: set[str] = set()
        self.dropped = 0
        self.events: list[AuditEntry] = []

    def trigger(self) -> None:
        self.triggers += 1

    @rule(count=st.integers(1, 7))
    def record(self, count: int) -> None:
        self.events += [
            AuditEntry.confirmed(self.sale_id, "shopper", order_id, now())
            for order_id in new_order_ids(count)
        ]
        self.take(self.events[-count:])

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def record_again(self, data: st.DataObject) -> None:
        """As when the delivery comes again whose first reply was lost."""
        self.take([data.draw(st.sampled_from(self.events))])

    @rule(
        fault=st.none() | st.sampled_from(Fault),
        strikes_at=st.integers(1, 3),
        meanwhile=st.integers(0, 4),
    )
    def flush(self, fault: Fault | None, strikes_at: int, meanwhile: int) -> None:
        statements = 0
        under_way: list[AuditEntry] = []

        def execute_sql(*arguments: Any) -> Any:
            nonlocal statements, under_way
            statements += 1
            self.waiting = self.waiting[len(under_way) :]
            under_way = self.waiting[:ROWS_PER_STATEMENT]
            if statements == 1 and meanwhile:
                self.record(meanwhile)
            is_struck = statements == strikes_at
            if is_struck and fault is Fault.REFUSED:
                raise sqlite3.OperationalError("disk I/O error")
            answer = type(self.database).execute_sql(self.database, *arguments)
            self.rows.update(event.id for event in under_way)
            if is_struck and fault is Fault.LOST_REPLY:
                raise sqlite3.OperationalError("disk I/O error")
            return answer

        before, expected = self.trail.written, len(self.waiting)
        self.database.execute_sql = execute_sql
        try:
            written = self.trail.flush()
        except StoreError:
            assert fault is not None
            assert statements == strikes_at
        else:
            self.waiting = self.waiting[len(under_way) :]
            assert not self.waiting, "a flush takes what came while it ran"
            assert written == self.trail.written - before >= expected
        finally:
            del self.database.execute_sql

    @invariant()
    def each_event_waits_or_is_written_or_was_counted_as_dropped(self) -> None:
        assert len(self.trail) == len(self.waiting) <= LIMIT
        assert self.trail.dropped == self.dropped

    def teardown(self) -> None:
        self.flush(None, 1, 0)
        rows = self.store.execute(
            "SELECT id FROM order_audit_trail WHERE sale_id = ?", self.sale_id
        )
        assert sorted(id_ for (id_,) in rows) == sorted(self.rows)

    def take(self, events: list[AuditEntry]) -> None:
        room = LIMIT - len(self.waiting)
        self.waiting += events[:room]
        self.dropped += len(events[room:])
        before = self.triggers
        self.trail.record(events)
        assert self.triggers - before == (len(self.waiting) >= BATCH_SIZE)


def test_no_event_is_forgotten_or_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small enough for a flush of several statements, of which the first ones succeed.
    monkeypatch.setattr(audit, "_ROWS_PER_STATEMENT", ROWS_PER_STATEMENT)
    with open_store(f"sqlite:///{tmp_path}/flashsale.db") as store:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: TrailMachine(store),
            settings=settings(
                derandomize=True, deadline=None, max_examples=60, stateful_step_count=25
            ),
        )
