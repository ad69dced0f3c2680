"""Migrations and models on PostgreSQL: the API's tables, made or adopted, by many at once."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import peewee
import pytest

from flashsale.database import open_database, session
from flashsale.errors import StoreError
from flashsale.migration import MigrationError, migrate, roll_back, status
from flashsale.models import MODELS, AuditEvent, AuditEventType, Order, Sale
from flashsale.urls import parse_database_url
from tests.support.api import API_MIGRATION

NAMES = ["001_create_sales", "002_create_orders", "003_create_order_audit_trail"]
TABLES = ("sales", "orders", "order_audit_trail")

CATALOG = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relname = ANY (%s) AND c.relnamespace = current_schema()::regnamespace
        ORDER BY c.relname, a.attnum""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE conrelid::regclass::text = ANY (%s) ORDER BY 1, 2""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY (%s) ORDER BY 1",
}
# These change when anything about a table or an index is rewritten, renamed or made again.
IDENTITIES = """
    SELECT c.relname, c.oid, c.relfilenode, c.relchecks, c.relowner, c.relacl::text, a.xmin::text
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname !~ 'migratehistory'
    ORDER BY c.relname, a.attnum"""


@pytest.fixture
def opened(empty_postgres_url: str) -> Iterator[Callable[..., peewee.Database]]:
    """Opens the test's database; `options` are libpq's, for one more way to see it."""
    databases = []

    def open_(options: str = "", timeout: float = 10.0) -> peewee.Database:
        url = f"{empty_postgres_url}{'&' if '?' in empty_postgres_url else '?'}options={options}"
        database = open_database(parse_database_url(url), statement_timeout_seconds=timeout)
        databases.append(database)
        return database

    yield open_
    for database in databases:
        database.close_all()


@pytest.fixture
def database(opened: Callable[..., peewee.Database]) -> peewee.Database:
    return opened()


def execute(database: peewee.Database, statement: str, *values: Any) -> list[tuple]:
    with session(database):
        cursor = database.execute_sql(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def catalog(database: peewee.Database) -> dict[str, list[tuple]]:
    return {what: execute(database, query, list(TABLES)) for what, query in CATALOG.items()}


def relations(database: peewee.Database) -> list[tuple]:
    """Every table and index of the schema, the history's included."""
    query = "SELECT oid, relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    return sorted(execute(database, query))


def a_sale() -> Sale:
    now = datetime.now(UTC)
    return Sale.create(id=uuid.uuid4(), name="Sale", total_stock=1, starts_at=now, ends_at=now)


def test_an_empty_database_gets_exactly_what_the_api_would_make(
    database: peewee.Database,
) -> None:
    assert migrate(database) == NAMES
    ours = catalog(database)

    execute(database, f"DROP TABLE {', '.join(TABLES)}")
    execute(database, API_MIGRATION)
    assert ours == catalog(database)


def test_the_models_describe_the_tables(
    database: peewee.Database, opened: Callable[..., peewee.Database]
) -> None:
    """Columns, types, NULL and keys, that is; defaults and indexes are told by the DDL alone."""
    migrate(database)
    execute(database, "CREATE SCHEMA described")
    described = opened("-c%20search_path=described")

    with session(described):
        described.bind_ctx(MODELS)(described.create_tables)(MODELS, safe=False)

    assert columns_and_keys(described) == columns_and_keys(database)


def columns_and_keys(database: peewee.Database) -> tuple[list[tuple], list[tuple]]:
    found = catalog(database)
    columns = [column for *column, _default in found["columns"]]
    return columns, sorted((table, key) for table, _name, key in found["constraints"])


def test_rows_come_back_through_the_models_as_they_went_in(database: peewee.Database) -> None:
    migrate(database)

    with session(database), database.bind_ctx(MODELS):
        sale = a_sale()
        order = Order.create(id=uuid.uuid4(), sale=sale, user_id="user")
        AuditEvent.create(
            id=uuid.uuid4(),
            sale_id=sale.id,
            user_id="user",
            event_type=AuditEventType.CONFIRMED,
            metadata={"orderId": str(order.id)},
        )
        event = AuditEvent.get(AuditEvent.metadata["orderId"] == str(order.id))
        stored = Order.get_by_id(str(order.id))

        assert (stored.id, stored.sale_id, stored.status) == (order.id, sale.id, "CONFIRMED")
        assert Sale.get_by_id(sale.id).starts_at == sale.starts_at
        assert (event.metadata, event.event_type) == ({"orderId": str(order.id)}, "CONFIRMED")
        assert abs(datetime.now(UTC) - stored.created_at) < timedelta(minutes=1)


def test_the_tables_of_the_api_are_adopted_untouched(database: peewee.Database) -> None:
    execute(database, API_MIGRATION)
    with session(database), database.bind_ctx(MODELS):
        Order.create(id=uuid.uuid4(), sale=a_sale(), user_id="user")
    before = catalog(database), execute(database, IDENTITIES)

    assert migrate(database) == NAMES

    assert (catalog(database), execute(database, IDENTITIES)) == before
    assert execute(database, "SELECT user_id FROM orders") == [("user",)]


@pytest.mark.parametrize(
    "difference",
    [
        "DROP INDEX idx_orders_user_id",
        "ALTER TABLE orders ALTER user_id TYPE text",
        "ALTER TABLE orders ADD note text, ADD channel text NOT NULL DEFAULT 'web'",
        "ALTER TABLE orders ADD number int NOT NULL GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE sales ADD product_id uuid NOT NULL",
    ],
)
def test_a_difference_that_does_no_harm_is_left_as_it_is(
    database: peewee.Database, difference: str
) -> None:
    """Sales are the API's to insert, so what they demand is no concern of flashsale."""
    execute(database, API_MIGRATION + difference)
    before = catalog(database)

    migrate(database)

    assert catalog(database) == before


@pytest.mark.parametrize(
    ("table", "difference", "problem"),
    [
        ("orders", "DROP status", "column status (varchar(50)) is missing"),
        (
            "orders",
            "ALTER user_id TYPE varchar(100)",
            "column user_id is varchar(100), not varchar(255)",
        ),
        ("order_audit_trail", "ALTER metadata TYPE json", "column metadata is json, not jsonb"),
        ("sales", "ALTER ends_at TYPE timestamp", "column ends_at is timestamp, not timestamptz"),
        ("orders", "ALTER created_at DROP DEFAULT", "column created_at has no default"),
        ("orders", "ADD channel text NOT NULL", "column channel demands a value"),
    ],
)
def test_a_table_that_does_not_fit_is_named_and_nothing_is_changed(
    database: peewee.Database, table: str, difference: str, problem: str
) -> None:
    execute(database, f"{API_MIGRATION} ALTER TABLE {table} {difference}")
    before = relations(database)

    expected = f"table {table} exists already and does not fit: {problem}"
    with pytest.raises(MigrationError, match=rf"{re.escape(expected)}.*Alter it"):
        migrate(database)

    assert relations(database) == before


@pytest.mark.parametrize(
    "instead",
    [
        "",
        "CREATE INDEX ON orders (sale_id, user_id)",
        "CREATE UNIQUE INDEX ON orders (sale_id, user_id) WHERE status = 'CONFIRMED'",
        "CREATE UNIQUE INDEX ON orders (sale_id, lower(user_id))",
        "CREATE UNIQUE INDEX ON orders (sale_id, user_id, status)",
        "ALTER TABLE orders ADD UNIQUE (sale_id, user_id) DEFERRABLE",
    ],
)
def test_orders_without_a_key_that_on_conflict_can_name_are_refused(
    database: peewee.Database, instead: str
) -> None:
    """Without it a redelivered event would become a second order."""
    execute(database, f"{API_MIGRATION} DROP INDEX orders_sale_id_user_id_key; {instead}")

    with pytest.raises(MigrationError, match=r"orders .*\(sale_id, user_id\) is not unique"):
        migrate(database)


def test_a_unique_index_with_further_columns_only_included_is_a_key(
    database: peewee.Database,
) -> None:
    index = "CREATE UNIQUE INDEX ON orders (user_id, sale_id) INCLUDE (status)"
    execute(database, f"{API_MIGRATION} DROP INDEX orders_sale_id_user_id_key; {index}")

    assert migrate(database) == NAMES


def test_a_failing_migration_leaves_nothing_behind(database: peewee.Database) -> None:
    """The first migration succeeded, and it is undone with the second."""
    execute(database, "CREATE TABLE orders (id int)")
    before = relations(database)

    with pytest.raises(MigrationError):
        migrate(database)

    assert relations(database) == before


def test_three_at_once_all_succeed_and_one_of_them_works(empty_postgres_url: str) -> None:
    command = [sys.executable, "-m", "flashsale", "migrate", "--database", empty_postgres_url]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]

    assert [code for _, _, code in results] == [0, 0, 0], results
    assert sorted(output.split() for output, _, _ in results) == [
        [],
        [],
        [word for name in NAMES for word in ("applied", name)],
    ]


def test_the_wait_for_another_migration_ends_and_says_why(
    database: peewee.Database, opened: Callable[..., peewee.Database]
) -> None:
    hasty = opened(timeout=0.4)
    with session(database), database.atomic():
        database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(b"flashmig"),))
        with pytest.raises(StoreError, match=r"another migration.*run this again") as caught:
            migrate(hasty)

    assert caught.value.sqlstate == "55P03"
    assert migrate(hasty) == NAMES


def test_status_reads_only(
    database: peewee.Database, opened: Callable[..., peewee.Database]
) -> None:
    reader = opened("-c%20default_transaction_read_only=on")

    assert [state.applied for state in status(reader)] == [False, False, False]
    migrate(database, up_to=NAMES[0])
    assert [state.applied for state in status(reader)] == [True, False, False]


def test_where_nothing_is_missing_no_right_to_write_is_needed(
    database: peewee.Database, opened: Callable[..., peewee.Database]
) -> None:
    """The worker's own user need not own the tables for its container to start with migrate."""
    migrate(database)

    assert migrate(opened("-c%20default_transaction_read_only=on")) == []


def test_a_user_who_may_not_create_tables_is_told_what_to_grant(
    database: peewee.Database, opened: Callable[..., peewee.Database]
) -> None:
    execute(database, "CREATE ROLE flashsale_clerk")
    try:
        with pytest.raises(StoreError, match="GRANT it CREATE"):
            migrate(opened("-c%20role=flashsale_clerk"))
    finally:
        execute(database, "DROP ROLE flashsale_clerk")


def test_rolling_back_all_leaves_only_an_empty_history(database: peewee.Database) -> None:
    migrate(database)

    assert roll_back(database, NAMES[0]) == NAMES[::-1]

    assert execute(database, "SELECT count(*) FROM migratehistory") == [(0,)]
    assert database_tables(database) == ["migratehistory"]


def database_tables(database: peewee.Database) -> list[str]:
    with session(database):
        tables: list[str] = database.get_tables()
        return tables


def test_rolling_back_stops_at_rows_and_undoes_nothing(database: peewee.Database) -> None:
    """The empty tables, which would go first, must be back as well."""
    migrate(database)
    with session(database), database.bind_ctx(MODELS):
        a_sale()
    before = relations(database)

    with pytest.raises(MigrationError, match="table sales holds rows"):
        roll_back(database, NAMES[0])

    assert relations(database) == before
    assert all(state.applied for state in status(database))
