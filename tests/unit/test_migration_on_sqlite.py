"""Migrations and models on SQLite, and what of the migrations does not depend on the database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import peewee
import pytest

from flashsale.database import open_database, session
from flashsale.migration import MigrationError, MigrationState, migrate, roll_back, status
from flashsale.models import MODELS, AuditEvent, AuditEventType, Order, Sale
from flashsale.urls import parse_database_url

NAMES = ["001_create_sales", "002_create_orders", "003_create_order_audit_trail"]
NOW = "strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')"
# name, type, not null, default
COLUMNS = {
    "sales": [
        ("id", "TEXT", True, None),
        ("name", "TEXT", True, None),
        ("total_stock", "INTEGER", True, None),
        ("starts_at", "TEXT", True, None),
        ("ends_at", "TEXT", True, None),
        ("created_at", "TEXT", True, NOW),
        ("updated_at", "TEXT", True, None),
    ],
    "orders": [
        ("id", "TEXT", True, None),
        ("sale_id", "TEXT", True, None),
        ("user_id", "TEXT", True, None),
        ("status", "TEXT", True, "'CONFIRMED'"),
        ("created_at", "TEXT", True, NOW),
    ],
    "order_audit_trail": [
        ("id", "TEXT", True, None),
        ("sale_id", "TEXT", True, None),
        ("user_id", "TEXT", True, None),
        ("event_type", "TEXT", True, None),
        ("metadata", "TEXT", False, None),
        ("created_at", "TEXT", True, NOW),
    ],
}
# name, unique, columns with their order; the primary key's index has a name of SQLite's own
INDEXES = {
    "sales": {
        ("idx_sales_time_range", False, "starts_at, ends_at"),
        ("idx_sales_created_at", False, "created_at DESC"),
        ("sqlite_autoindex_sales_1", True, "id"),
    },
    "orders": {
        ("orders_sale_id_user_id_key", True, "sale_id, user_id"),
        ("idx_orders_sale_id", False, "sale_id"),
        ("idx_orders_user_id", False, "user_id"),
        ("idx_orders_created_at", False, "created_at DESC"),
        ("sqlite_autoindex_orders_1", True, "id"),
    },
    "order_audit_trail": {
        ("idx_audit_sale_user", False, "sale_id, user_id"),
        ("idx_audit_event_type", False, "event_type"),
        ("idx_audit_created_at", False, "created_at DESC"),
        ("sqlite_autoindex_order_audit_trail_1", True, "id"),
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flashsale.db"


@pytest.fixture
def database(file: Path) -> Iterator[peewee.Database]:
    database = open_database(parse_database_url(f"sqlite:///{file}"))
    yield database
    database.close_all()


def rows(database: peewee.Database, statement: str) -> list[tuple]:
    with session(database):
        return database.execute_sql(statement).fetchall()


def execute(database: peewee.Database, *statements: str) -> None:
    with session(database):
        for statement in statements:
            database.execute_sql(statement)


def columns(database: peewee.Database, table: str) -> list[tuple[str, str, bool, str | None]]:
    found = rows(database, f"PRAGMA table_info({table})")
    return [(name, kind.upper(), bool(full), default) for _, name, kind, full, default, _ in found]


def indexes(database: peewee.Database, table: str) -> set[tuple[str, bool, str]]:
    return {
        (
            name,
            bool(unique),
            ", ".join(
                f"{column} DESC" if descending else column
                for _, _, column, descending, _, key in rows(
                    database, f"PRAGMA index_xinfo({name})"
                )
                if key
            ),
        )
        for _, name, unique, _, _ in rows(database, f"PRAGMA index_list({table})")
    }


def schema(database: peewee.Database) -> list[tuple]:
    return rows(database, "SELECT type, name, sql FROM sqlite_master ORDER BY name")


def a_sale() -> Sale:
    now = datetime.now(UTC)
    return Sale.create(id=uuid.uuid4(), name="Sale", total_stock=1, starts_at=now, ends_at=now)


def test_an_empty_database_gets_exactly_the_tables_of_the_contract(
    database: peewee.Database,
) -> None:
    assert migrate(database) == NAMES

    tables = {name for kind, name, _ in schema(database) if kind == "table"}
    assert tables == {*COLUMNS, "migratehistory"}
    for table, expected in COLUMNS.items():
        assert columns(database, table) == expected
        assert indexes(database, table) == INDEXES[table]
    for table in ("orders", "order_audit_trail"):
        (key,) = rows(database, f"PRAGMA foreign_key_list({table})")
        assert key[2:7] == ("sales", "sale_id", "id", "CASCADE", "CASCADE")
    assert rows(database, "PRAGMA foreign_key_list(sales)") == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_models_describe_the_tables_of_the_contract(model: type[peewee.Model]) -> None:
    """The PostgreSQL test compares the types; names, order and NULL are the same everywhere."""
    contract = [(name, not_null) for name, _, not_null, _ in COLUMNS[model._meta.table_name]]

    assert [(field.column_name, not field.null) for field in model._meta.sorted_fields] == contract
    assert model._meta.primary_key is model.id


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


def test_ids_are_kept_as_the_text_that_events_carry(database: peewee.Database) -> None:
    """Peewee's own field would keep bare hex, which equals no id written by plain SQL."""
    migrate(database)

    with session(database), database.bind_ctx(MODELS):
        sale = a_sale()

    assert rows(database, "SELECT id FROM sales") == [(str(sale.id),)]


@pytest.mark.parametrize(
    "text",
    ["urn:uuid:11111111-2222-4333-8444-555555555555", "1111_111-2222-4333-8444-555555555555"],
)
def test_an_id_in_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        Sale.id.db_value(text)


def test_moments_are_kept_in_utc_so_that_their_text_sorts() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    assert Sale.starts_at.db_value(noon).isoformat() == "2026-01-01T10:00:00+00:00"


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Sale.starts_at.db_value(datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_second_run_finds_nothing_to_do(database: peewee.Database) -> None:
    migrate(database)

    assert migrate(database) == []


def test_up_to_stops_after_the_named_migration(database: peewee.Database) -> None:
    assert migrate(database, up_to=NAMES[1]) == NAMES[:2]
    assert migrate(database, up_to=NAMES[0]) == []
    assert migrate(database) == NAMES[2:]


@pytest.mark.parametrize("act", [lambda db, name: migrate(db, up_to=name), roll_back])
def test_an_unknown_migration_is_refused_and_the_known_ones_are_named(
    database: peewee.Database, act
) -> None:
    with pytest.raises(MigrationError, match=r"no migration '004'.*001_create_sales"):
        act(database, "004")


def test_fake_records_the_migrations_and_creates_no_table(database: peewee.Database) -> None:
    assert migrate(database, fake=True) == NAMES

    assert all(state.applied for state in status(database))
    assert {name for _, name, _ in schema(database)} == {"migratehistory"}


def test_status_tells_what_is_applied(database: peewee.Database) -> None:
    migrate(database, up_to=NAMES[0])

    assert status(database) == [
        MigrationState(NAMES[0], applied=True),
        MigrationState(NAMES[1], applied=False),
        MigrationState(NAMES[2], applied=False),
    ]


def test_status_does_not_even_create_the_file(database: peewee.Database, file: Path) -> None:
    assert not any(state.applied for state in status(database))
    assert not file.exists()


def test_a_table_that_fits_is_adopted_untouched(database: peewee.Database) -> None:
    """Also its missing indexes stay missing: whoever made it decides on them."""
    execute(
        database,
        "CREATE TABLE orders (id VARCHAR(36) PRIMARY KEY, sale_id TEXT, user_id TEXT, note TEXT,"
        " status TEXT DEFAULT 'x', created_at TEXT DEFAULT 'y', UNIQUE (user_id, sale_id))",
    )
    before = schema(database)

    migrate(database)

    assert set(before) <= set(schema(database))
    assert "idx_orders_user_id" not in {name for _, name, _ in schema(database)}


def test_a_failing_migration_leaves_nothing_behind(database: peewee.Database) -> None:
    """Not even the tables of the migrations before it, or the history."""
    execute(
        database,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id TEXT, status TEXT DEFAULT 'x',"
        " created_at TEXT, demanded TEXT NOT NULL)",
    )
    before = schema(database)

    with pytest.raises(MigrationError) as caught:
        migrate(database)

    for problem in (
        "table orders exists already",
        "column id is integer, not uuid",
        "column sale_id (uuid) is missing",
        "column created_at has no default",
        "column demanded demands a value",
        "(sale_id, user_id) is not unique",
        "nothing was changed",
    ):
        assert problem in str(caught.value)
    assert schema(database) == before


def test_a_partly_unique_index_is_not_taken_for_a_unique_one(database: peewee.Database) -> None:
    """`ON CONFLICT (sale_id, user_id)` would not find it, and every insert would fail."""
    migrate(database)
    execute(
        database,
        "DROP INDEX orders_sale_id_user_id_key",
        "CREATE UNIQUE INDEX part ON orders (sale_id, user_id) WHERE status = 'CONFIRMED'",
        "DROP TABLE migratehistory",
    )

    with pytest.raises(MigrationError, match=r"\(sale_id, user_id\) is not unique"):
        migrate(database)


def test_rolling_back_goes_down_to_the_named_migration_newest_first(
    database: peewee.Database,
) -> None:
    migrate(database)

    assert roll_back(database, NAMES[1]) == NAMES[:0:-1]

    assert [state.applied for state in status(database)] == [True, False, False]
    assert {name for _, name, _ in schema(database)} & set(COLUMNS) == {"sales"}
    assert migrate(database) == NAMES[1:]


def test_rolling_back_stops_at_rows_and_undoes_nothing(database: peewee.Database) -> None:
    """The empty audit trail, which would go first, must be back as well."""
    migrate(database)
    with session(database), database.bind_ctx(MODELS):
        Order.create(id=uuid.uuid4(), sale=a_sale(), user_id="user")
    before = schema(database)

    with pytest.raises(MigrationError, match="table orders holds rows"):
        roll_back(database, NAMES[0])

    assert schema(database) == before
    assert all(state.applied for state in status(database))


def test_rolling_back_what_is_not_applied_is_refused(database: peewee.Database) -> None:
    with pytest.raises(MigrationError, match="not applied"):
        roll_back(database, NAMES[2])


@pytest.mark.parametrize("act", [migrate, lambda database: roll_back(database, NAMES[0])])
def test_a_database_of_a_newer_flashsale_is_left_alone(database: peewee.Database, act) -> None:
    migrate(database, up_to=NAMES[0])
    execute(database, "INSERT INTO migratehistory (name, migrated_at) VALUES ('999_later', '')")

    with pytest.raises(MigrationError, match=r"newer flashsale .*999_later"):
        act(database)


def test_a_database_of_a_newer_flashsale_has_nothing_to_do(database: peewee.Database) -> None:
    """In a rolling deployment an old container may start after the new one has migrated."""
    migrate(database)
    execute(database, "INSERT INTO migratehistory (name, migrated_at) VALUES ('999_later', '')")

    assert migrate(database) == []
