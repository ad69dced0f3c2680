"""A row of the audit trail, and the statement that writes many."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import attrgetter

import msgspec
import peewee

from flashsale.database import session
from flashsale.errors import StoreError
from flashsale.ids import audit_id, audit_id_without_order
from flashsale.isolation import RowFault, isolate
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
_BY_ID = attrgetter("id")
_COLUMNS = [attrgetter(name) for name in ("id", "sale_id", "user_id", "event_type", "metadata")]
# Looked up and hashed for each row, which a member of an enumeration does in Python.
_CONFIRMED = AuditEventType.CONFIRMED.value
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
        return cls(audit_id(order_id, _CONFIRMED), sale_id, user_id, _CONFIRMED, metadata)

    @classmethod
    def failed(cls, purchase: Purchase, error: StoreError, failed_at: datetime) -> AuditEntry:
        """The database kept a purchase from being written at its first attempt."""
        metadata = json.dumps(
            {"error": str(error), "errorCode": error.sqlstate, "failedAt": _instant(failed_at)}
        )
        type_ = AuditEventType.FAILED_DB
        id_ = audit_id_without_order(purchase.sale_id, purchase.user_id, type_)
        return cls(id_, purchase.sale_id, purchase.user_id, type_, metadata)


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
