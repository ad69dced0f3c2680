"""Ids that the worker makes: new for an order, derived for an audit row."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from freezegun import freeze_time

from flashsale.ids import audit_id, audit_id_without_order, new_order_ids

ORDER = "019c5f3a-7b21-7c4d-9e8f-0123456789ab"
OLD_WORKERS_ORDER = "b4c7a2de-91f0-4e6b-8d35-fedcba987654"
SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


def test_order_ids_are_uuids_of_version_7_in_their_usual_form() -> None:
    ids = new_order_ids(1_000)

    parsed = [uuid.UUID(id_) for id_ in ids]
    assert [str(id_) for id_ in parsed] == ids
    assert {(id_.version, id_.variant) for id_ in parsed} == {(7, uuid.RFC_4122)}


def test_order_ids_are_all_different() -> None:
    assert len(set(new_order_ids(10_000) + new_order_ids(10_000))) == 20_000


def test_no_ids_are_made_for_no_orders() -> None:
    assert new_order_ids(0) == []


def test_later_order_ids_sort_behind_earlier_ones() -> None:
    with freeze_time("2026-01-02 03:04:05.500") as clock:
        earlier = new_order_ids(100)
        clock.tick(0.25)
        later = new_order_ids(100)

    assert max(earlier) < min(later)


def test_an_order_id_begins_with_its_time_in_milliseconds() -> None:
    with freeze_time("2026-01-02 03:04:05.500"):
        (id_,) = new_order_ids(1)

    milliseconds = datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC).timestamp() * 1000
    assert int(id_.replace("-", "")[:12], 16) == milliseconds


def test_an_audit_id_follows_from_the_order_and_the_type() -> None:
    """Values that stand in databases: another derivation would write every row a second time."""
    assert audit_id(ORDER, "CONFIRMED") == "019c5f3a-7b21-81e3-9e8f-0123456789ab"
    without_order = audit_id_without_order(SALE, "user", "FAILED_DB")
    assert without_order == "a30c1fb4-3a19-81b4-bb40-24c1f8688be3"


def test_audit_ids_differ_by_order_by_user_and_by_type() -> None:
    ids = {
        audit_id(ORDER, "CONFIRMED"),
        audit_id(OLD_WORKERS_ORDER, "CONFIRMED"),
        audit_id(ORDER, "FAILED_DB"),
        audit_id_without_order(SALE, "a", "FAILED_DB"),
        audit_id_without_order(SALE, "b", "FAILED_DB"),
        audit_id_without_order(ORDER, "a", "FAILED_DB"),
    }

    assert len(ids) == 6


def test_audit_ids_are_uuids_of_version_8_in_their_usual_form() -> None:
    for number in range(100):
        for id_ in (
            audit_id(ORDER, str(number)),
            audit_id(OLD_WORKERS_ORDER, str(number)),
            audit_id_without_order(SALE, "zoë", str(number)),
        ):
            parsed = uuid.UUID(id_)
            assert (str(parsed), parsed.version, parsed.variant) == (id_, 8, uuid.RFC_4122)


def test_an_audit_id_keeps_the_time_of_its_order() -> None:
    """So that the rows of one moment lie together in the index, as the orders do."""
    assert audit_id(ORDER, "CONFIRMED")[:13] == ORDER[:13]
