"""Single rows of the audit trail, and what the table's refusals cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import astuple

from flashsale.audit_rows import AuditEntry, now, report_refused, write_events
from flashsale.errors import EventFault, TransientFault, UnclassifiedFault
from flashsale.purchases import Purchase
from tests.support.stores import Store, before_each_statement, events_of

ORDER = "019c5f3a-7b21-7c4d-9e8f-0123456789ab"
SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 250_000, UTC)


def test_a_confirmed_row_is_these_very_texts() -> None:
    event = AuditEntry.confirmed(SALE, "user", ORDER, MOMENT, MOMENT)

    *columns, metadata = astuple(event)
    assert columns == ["019c5f3a-7b21-81e3-9e8f-0123456789ab", SALE, "user", "CONFIRMED"]
    assert metadata == (
        f'{{"orderId":"{ORDER}","processedAt":"2026-01-02T03:04:05.250Z",'
        '"occurredAt":"2026-01-02T03:04:05.250000+00:00"}'
    )


def test_a_failed_row_is_these_very_texts() -> None:
    """Its id stands in databases: another derivation would write the row a second time."""
    fault = TransientFault("a deadlock", sqlstate="40P01")
    event = AuditEntry.failed(Purchase(SALE, "user"), fault, MOMENT)

    *columns, metadata = astuple(event)
    assert columns == ["a30c1fb4-3a19-81b4-bb40-24c1f8688be3", SALE, "user", "FAILED_DB"]
    assert metadata == (
        '{"error": "a deadlock (SQLSTATE 40P01)", "errorCode": "40P01",'
        ' "failedAt": "2026-01-02T03:04:05.250Z"}'
    )


def test_now_is_in_utc() -> None:
    assert now().tzinfo is UTC


@pytest.mark.parametrize(("rows", "refused"), [(15, 15), (16, None), (300, None)])
def test_a_table_that_refuses_all_is_not_asked_for_each_row(
    store: Store, rows: int, refused: int | None
) -> None:
    """Sixteen refused and none taken are enough to blame the table."""
    sale_id = store.add_sale()
    events = events_of(sale_id, *(f"bad-{number}" for number in range(rows)))
    store.forbid_bad_users("order_audit_trail")
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        if refused is None:
            with pytest.raises(EventFault):
                write_events(store.database, events)
        else:
            assert len(write_events(store.database, events)) == refused

    assert len(statements) <= 50
    assert store.trail() == []


def test_refused_rows_are_reported_in_one_line_with_how_many_each_cause_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    report_refused([])
    report_refused(
        [
            EventFault("refused by forbidden", sqlstate="23514", row_id=ORDER),
            UnclassifiedFault("the driver refused a value (ValueError)"),
            EventFault("refused by forbidden", sqlstate="23514"),
        ]
    )

    (record,) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "audit.rows_refused")
    assert vars(record)["rows"] == 3
    assert vars(record)["causes"] == {
        "refused by forbidden (SQLSTATE 23514)": 2,
        "the driver refused a value (ValueError)": 1,
    }
