"""Create `sales`, or adopt the table that the API's own migration made."""

import peewee
from peewee_migrate import Migrator

from flashsale.adoption import Column, Table, create_or_adopt, drop_if_empty

SALES = Table(
    "sales",
    columns=(
        Column("id", "uuid"),
        Column("name", "varchar", 255),
        Column("total_stock", "integer"),
        Column("starts_at", "timestamptz"),
        Column("ends_at", "timestamptz"),
        Column("created_at", "timestamptz", has_default=True),
        Column("updated_at", "timestamptz"),
    ),
    unique=(frozenset({"id"}),),
    takes_inserts=False,
)

POSTGRESQL = """
    CREATE TABLE sales (
        id uuid NOT NULL,
        name varchar(255) NOT NULL,
        total_stock integer NOT NULL,
        starts_at timestamptz(6) NOT NULL,
        ends_at timestamptz(6) NOT NULL,
        created_at timestamptz(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at timestamptz(6) NOT NULL,
        CONSTRAINT sales_pkey PRIMARY KEY (id)
    )
"""

SQLITE = """
    CREATE TABLE sales (
        id text NOT NULL,
        name text NOT NULL,
        total_stock integer NOT NULL,
        starts_at text NOT NULL,
        ends_at text NOT NULL,
        created_at text NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')),
        updated_at text NOT NULL,
        CONSTRAINT sales_pkey PRIMARY KEY (id)
    )
"""

INDEXES = (
    "CREATE INDEX idx_sales_time_range ON sales (starts_at, ends_at)",
    "CREATE INDEX idx_sales_created_at ON sales (created_at DESC)",
)


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    create = SQLITE if isinstance(database, peewee.SqliteDatabase) else POSTGRESQL
    migrator.run(create_or_adopt, database, SALES, (create, *INDEXES))


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    migrator.run(drop_if_empty, database, SALES.name)
