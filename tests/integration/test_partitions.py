"""The worker's statements on partitioned tables, as docs/scaling.md has them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.migration import MigrationError, migrate
from flashsale.orders import Confirmed, Duplicate, OrderBook, Outcome, Refused
from flashsale.purchases import Reason
from flashsale.reconcile import Reconciler
from flashsale.verification import verify
from tests.support.documents import blocks
from tests.support.stores import Store, open_store, purchases_of

(STATEMENTS,) = blocks("docs/scaling.md", "sql", "## Partitions of PostgreSQL")
UNKNOWN = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


@pytest.fixture(params=["sale_id", "user_id"])
def partitioned(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Store]:
    """Tables as the page makes them, and the same with buyers in the place of sales."""
    with open_store(postgres_url, migrated=True) as store:
        store.execute("DROP TABLE order_audit_trail, orders")
        by_param = STATEMENTS.replace("HASH (sale_id)", f"HASH ({request.param})")
        for statement in by_param.replace("(id, sale_id)", f"(id, {request.param})").split(";"):
            if statement.strip():
                store.execute(statement)
        yield store


def test_orders_and_audit_rows_are_written_once(partitioned: Store) -> None:
    sale_id = partitioned.add_sale()
    users = [f"user-{number}" for number in range(100)]
    purchases = [*purchases_of(sale_id, *users, *users[:10]), *purchases_of(UNKNOWN, "user")]
    trail = AuditTrail(partitioned.database)
    for kinds in ({Confirmed: 100, Duplicate: 10}, {Duplicate: 110}):
        outcomes: list[Outcome | None] = [None] * len(purchases)
        OrderBook(partitioned.database).confirm(purchases, outcomes)
        assert outcomes[-1] == Refused(Reason.UNKNOWN_SALE)
        assert {kind: sum(isinstance(each, kind) for each in outcomes) for kind in kinds} == kinds

    orders = partitioned.order_ids()
    for _ in range(2):
        trail.record(AuditEntry.confirmed(*key, order, now()) for key, order in orders.items())
        trail.flush()
    Reconciler(partitioned.database).run(settling=-timedelta(seconds=1))
    assert len(partitioned.trail()) == 100
    assert verify(partitioned.database).violations == []


def test_the_migrations_are_recorded_and_not_run(partitioned: Store) -> None:
    """They would want ids to be unique by themselves, which no partitioned table can promise."""
    partitioned.execute("DROP TABLE migratehistory")

    with pytest.raises(MigrationError, match=r"\(id\) is not unique"):
        migrate(partitioned.database)
    assert len(migrate(partitioned.database, fake=True)) == 3
