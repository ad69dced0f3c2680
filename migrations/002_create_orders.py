"""Create `orders`, or adopt the table that the API's own migration made."""

import peewee
from peewee_migrate import Migrator

from flashsale.adoption import Column, Table, create_or_adopt, drop_if_empty

ORDERS = Table(
    "orders",
    columns=(
        Column("id", "uuid"),
        Column("sale_id", "uuid"),
        Column("user_id", "varchar", 255),
        Column("status", "varchar", 50, has_default=True),
        Column("created_at", "timestamptz", has_default=True),
    ),
    unique=(frozenset({"id"}), frozenset({"sale_id", "user_id"})),
)

POSTGRESQL = """
    CREATE TABLE orders (
        id uuid NOT NULL,
        sale_id uuid NOT NULL,
        user_id varchar(255) NOT NULL,
        status varchar(50) NOT NULL DEFAULT 'CONFIRMED',
        created_at timestamptz(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        CONSTRAINT orders_pkey PRIMARY KEY (id),
        CONSTRAINT orders_sale_id_fkey FOREIGN KEY (sale_id) REFERENCES sales (id)
            ON DELETE CASCADE ON UPDATE CASCADE
    )
"""

SQLITE = """
    CREATE TABLE orders (
        id text NOT NULL,
        sale_id text NOT NULL,
        user_id text NOT NULL,
        status text NOT NULL DEFAULT 'CONFIRMED',
        created_at text NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')),
        CONSTRAINT orders_pkey PRIMARY KEY (id),
        CONSTRAINT orders_sale_id_fkey FOREIGN KEY (sale_id) REFERENCES sales (id)
            ON DELETE CASCADE ON UPDATE CASCADE
    )
"""

INDEXES = (
    # One order for each user of a sale: the promise that everything else leans on.
    "CREATE UNIQUE INDEX orders_sale_id_user_id_key ON orders (sale_id, user_id)",
    "CREATE INDEX idx_orders_sale_id ON orders (sale_id)",
    "CREATE INDEX idx_orders_user_id ON orders (user_id)",
    "CREATE INDEX idx_orders_created_at ON orders (created_at DESC)",
)


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    create = SQLITE if isinstance(database, peewee.SqliteDatabase) else POSTGRESQL
    migrator.run(create_or_adopt, database, ORDERS, (create, *INDEXES))


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    migrator.run(drop_if_empty, database, ORDERS.name)
