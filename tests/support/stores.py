"""A migrated database of a test's own, and what tests ask of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import peewee

from flashsale.audit_rows import AuditEntry, now
from flashsale.database import close_database, open_database, session
from flashsale.ids import new_order_ids
from flashsale.migration import migrate
from flashsale.orders import OrderBook, Outcome
from flashsale.purchases import Purchase
from flashsale.urls import parse_database_url

# The id of a sale that no database here has.
NO_SALE = "00000000-0000-4000-8000-000000000000"

_ADD_SALE = """
INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)
VALUES (?, 'sale', 1000, '2026-01-01 00:00:00+00:00', '2026-01-02 00:00:00+00:00',
        '2026-01-01 00:00:00+00:00')
"""
# A refusal of "riddle", which the expression cannot take, does not name its row.
_FORBID_POSTGRES = """
ALTER TABLE {table} ADD CONSTRAINT forbidden CHECK (user_id NOT LIKE 'bad%'),
    ADD CONSTRAINT unanswerable CHECK (user_id NOT LIKE 'riddle%' OR length(user_id) / 0 = 0)
"""
_FORBID_SQLITE = """
CREATE TRIGGER forbidden BEFORE INSERT ON {table}
WHEN new.user_id LIKE 'bad%' OR new.user_id LIKE 'riddle%'
BEGIN SELECT RAISE(ABORT, 'forbidden'); END
"""


def events_of(sale_id: str, *users: str) -> list[AuditEntry]:
    """The events that new orders of these users leave for the trail."""
    return [
        AuditEntry.confirmed(sale_id, user, order_id, now())
        for user, order_id in zip(users, new_order_ids(len(users)), strict=True)
    ]


class TrailRow(NamedTuple):
    """A row of the audit trail, without the time it was written."""

    id: str
    sale_id: str
    user_id: str
    event_type: str
    metadata: dict[str, Any]


class Store:
    """The tables behind `database`, seen from outside of the code under test."""

    def __init__(self, database: peewee.Database) -> None:
        self.database = database
        self.on_postgres = not isinstance(database, peewee.SqliteDatabase)

    def execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement with ``?`` for parameters; its rows, if it returns any."""
        if self.on_postgres:
            sql = sql.replace("%", "%%").replace("?", "%s")
        with session(self.database):
            cursor = self.database.execute_sql(sql, parameters)
            return [] if cursor.description is None else cursor.fetchall()

    def add_sale(self) -> str:
        sale_id = str(uuid.uuid4())
        self.execute(_ADD_SALE, sale_id)
        return sale_id

    def forbid_bad_users(self, table: str = "orders") -> None:
        """Let the database refuse rows of users whose id begins with ``bad`` or ``riddle``.

        PostgreSQL's answer is 23514 for the former, and 22012 for the latter.
        """
        statement = _FORBID_POSTGRES if self.on_postgres else _FORBID_SQLITE
        self.execute(statement.format(table=table))

    def confirm(self, purchases: Sequence[Purchase]) -> list[Outcome | None]:
        outcomes: list[Outcome | None] = [None] * len(purchases)
        OrderBook(self.database).confirm(purchases, outcomes)
        return outcomes

    def order_ids(self) -> dict[tuple[str, str], str]:
        """The order ids by sale and user."""
        rows = self.execute(
            "SELECT CAST(sale_id AS text), user_id, CAST(id AS text) FROM orders ORDER BY user_id"
        )
        return {(sale_id, user_id): id_ for sale_id, user_id, id_ in rows}

    def users(self) -> list[str]:
        """Who has an order."""
        return [user_id for _, user_id in self.order_ids()]

    def trail(self) -> list[TrailRow]:
        rows = self.execute(
            "SELECT CAST(id AS text), CAST(sale_id AS text), user_id, event_type,"
            " CAST(metadata AS text) FROM order_audit_trail ORDER BY user_id, event_type"
        )
        return [TrailRow(*row[:4], json.loads(row[4])) for row in rows]


@contextmanager
def open_store(url: str, *, migrated: bool = False, **options: Any) -> Iterator[Store]:
    """A store at `url`; its connections are closed at the end. SQLite files are made here."""
    database = open_database(parse_database_url(url), **options)
    try:
        if not migrated:
            migrate(database)
        yield Store(database)
    finally:
        close_database(database)


def purchases_of(sale_id: str, *user_ids: str) -> list[Purchase]:
    return [Purchase(sale_id, user_id) for user_id in user_ids]


def numbered_purchases(sale_id: str, count: int) -> list[Purchase]:
    return purchases_of(sale_id, *(f"user-{number:03}" for number in range(count)))


@contextmanager
def before_each_statement(
    database: peewee.Database, hook: Callable[[int], object]
) -> Iterator[None]:
    """Call `hook` with 1, 2, 3 … before each statement of `database`, which then runs."""
    count = 0

    def execute_sql(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        hook(count)
        return type(database).execute_sql(database, *arguments)

    database.execute_sql = execute_sql
    try:
        yield
    finally:
        del database.execute_sql
