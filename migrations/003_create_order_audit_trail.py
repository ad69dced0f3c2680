"""Create `order_audit_trail`, or adopt the table that the API's own migration made."""

import peewee
from peewee_migrate import Migrator

from flashsale.adoption import Column, Table, create_or_adopt, drop_if_empty

AUDIT_TRAIL = Table(
    "order_audit_trail",
    columns=(
        Column("id", "uuid"),
        Column("sale_id", "uuid"),
        Column("user_id", "varchar", 255),
        Column("event_type", "varchar", 100),
        Column("metadata", "jsonb"),
        Column("created_at", "timestamptz", has_default=True),
    ),
    unique=(frozenset({"id"}),),
)

POSTGRESQL = """
    CREATE TABLE order_audit_trail (
        id uuid NOT NULL,
        sale_id uuid NOT NULL,
        user_id varchar(255) NOT NULL,
        event_type varchar(100) NOT NULL,
        metadata jsonb,
        created_at timestamptz(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        CONSTRAINT order_audit_trail_pkey PRIMARY KEY (id),
        CONSTRAINT order_audit_trail_sale_id_fkey FOREIGN KEY (sale_id) REFERENCES sales (id)
            ON DELETE CASCADE ON UPDATE CASCADE
    )
"""

SQLITE = """
    CREATE TABLE order_audit_trail (
        id text NOT NULL,
        sale_id text NOT NULL,
        user_id text NOT NULL,
        event_type text NOT NULL,
        metadata text,
        created_at text NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')),
        CONSTRAINT order_audit_trail_pkey PRIMARY KEY (id),
        CONSTRAINT order_audit_trail_sale_id_fkey FOREIGN KEY (sale_id) REFERENCES sales (id)
            ON DELETE CASCADE ON UPDATE CASCADE
    )
"""

INDEXES = (
    "CREATE INDEX idx_audit_sale_user ON order_audit_trail (sale_id, user_id)",
    "CREATE INDEX idx_audit_event_type ON order_audit_trail (event_type)",
    "CREATE INDEX idx_audit_created_at ON order_audit_trail (created_at DESC)",
)


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    create = SQLITE if isinstance(database, peewee.SqliteDatabase) else POSTGRESQL
    migrator.run(create_or_adopt, database, AUDIT_TRAIL, (create, *INDEXES))


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    migrator.run(drop_if_empty, database, AUDIT_TRAIL.name)
