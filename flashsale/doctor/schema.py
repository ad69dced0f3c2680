"""The tables, compared with what the migrations make and with what the worker may do to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import peewee

from flashsale import migration
from flashsale.adoption import Table, misfits
from flashsale.doctor.finding import Finding, fail, ok, unknown, warn
from flashsale.errors import StoreError
from flashsale.models import ORDER_CONFIRMED
from flashsale.verification import CHECKS

_NOT_PERMITTED = "42501"
_INDEX = re.compile(r"CREATE (?P<unique>UNIQUE )?INDEX \w+ ON \w+ \((?P<columns>.+)\)")

#: What the worker needs, as docs/security.md grants it: table, privilege, columns.
GRANTS = (
    ("sales", "SELECT", ("id",)),
    ("orders", "INSERT", ("id", "sale_id", "user_id")),
    ("orders", "SELECT", ("id", "sale_id", "user_id", "status", "created_at")),
    ("order_audit_trail", "INSERT", ("id", "sale_id", "user_id", "event_type", "metadata")),
    ("order_audit_trail", "SELECT", ("sale_id", "user_id", "event_type")),
)


def examine_schema(database: peewee.Database) -> Iterator[Finding]:
    """Migrations, tables, indexes, constraints and grants. To be used inside a session."""
    yield _migrations(database)
    on_postgres = not isinstance(database, peewee.SqliteDatabase)
    are_there = True
    for table, indexes in migration.tables():
        problems = misfits(database, table)
        if problems is None:
            are_there = False
            yield fail(
                "tables",
                f"table {table.name} does not exist, or its schema is not in the search path",
                "run `flashsale migrate`, or name the schema: ?schema=… in DATABASE_URL",
            )
            continue
        yield from _table(table, problems)
        if on_postgres:
            yield from _indexes(database, table, indexes)
    if on_postgres and are_there:
        yield from _constraints(database)
        yield from _status_default(database)
        yield from _grants(database)


def _migrations(database: peewee.Database) -> Finding:
    try:
        states = migration.status(database)
    except StoreError as error:
        if error.sqlstate != _NOT_PERMITTED:
            raise
        return unknown(
            "migrations",
            "this user may not read which migrations are applied",
            "run `flashsale migrate --status` as the tables' owner; what follows tells the rest",
        )
    missing = [state.name for state in states if not state.applied]
    if missing:
        return fail("migrations", f"not applied: {', '.join(missing)}", "run `flashsale migrate`")
    return ok("migrations", f"all {len(states)} are applied")


def _table(table: Table, problems: Sequence[str]) -> Iterator[Finding]:
    if not problems:
        yield ok("tables", f"{table.name} has the columns, types, defaults and keys it needs")
    for problem in problems:
        yield fail(
            "tables",
            f"{table.name}: {problem}",
            "alter it; migrations/ has the table as it must be",
        )


def _indexes(
    database: peewee.Database, table: Table, statements: Sequence[str]
) -> Iterator[Finding]:
    rows = database.execute_sql(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = to_regclass(%s) AND indisvalid AND indpred IS NULL",
        (table.name,),
    ).fetchall()
    there = {definition.partition(" USING btree ")[2].strip("()") for (definition,) in rows}
    for statement in statements:
        wanted = _INDEX.fullmatch(statement)
        if wanted is None or wanted["unique"] or wanted["columns"] in there:
            continue  # a unique one is among the keys that the table needs
        yield warn(
            "indexes",
            f"{table.name} has no valid index on ({wanted['columns']}): reading it gets slow",
            statement.replace("INDEX ", "INDEX CONCURRENTLY "),
        )


def _constraints(database: peewee.Database) -> Iterator[Finding]:
    (check,) = (check for check in CHECKS if check.name == "no_foreign_key")
    tables = [name for (name,) in database.execute_sql(check.rows).fetchall()]
    if tables:
        yield fail("constraints", f"{check.meaning}: {', '.join(tables)}", check.remedy)


def _status_default(database: peewee.Database) -> Iterator[Finding]:
    ((default,),) = database.execute_sql(
        "SELECT (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute AS a"
        " ON a.attrelid = adrelid AND a.attnum = adnum"
        " WHERE adrelid = to_regclass('orders') AND attname = 'status')"
    ).fetchall()
    if default is not None and not default.startswith(f"'{ORDER_CONFIRMED}'"):
        yield fail(
            "tables",
            f"the default of orders.status is not {ORDER_CONFIRMED}, and orders get it",
            f"ALTER TABLE orders ALTER status SET DEFAULT '{ORDER_CONFIRMED}'",
        )


def _grants(database: peewee.Database) -> Iterator[Finding]:
    needed = [(table, right, column) for table, right, columns in GRANTS for column in columns]
    rows = database.execute_sql(
        "SELECT table_, right_, column_ FROM unnest(%s, %s, %s) AS needed (table_, right_, column_)"
        # A column that is missing is told with its table, and has no rights.
        " JOIN pg_attribute ON attrelid = to_regclass(table_) AND attname = column_"
        " AND NOT attisdropped"
        " WHERE NOT has_column_privilege(attrelid, attnum, right_)",
        [list(texts) for texts in zip(*needed, strict=True)],
    ).fetchall()
    if not rows:
        yield ok("database-permissions", "the user of DATABASE_URL may all that the worker needs")
    for table, right, columns in GRANTS:
        denied = [column for column in columns if (table, right, column) in rows]
        if denied:
            grant = f"{right} ({', '.join(denied)}) ON {table}"
            yield fail(
                "database-permissions",
                f"the user of DATABASE_URL lacks {grant}",
                f"as the owner: GRANT {grant} TO the user; docs/security.md has all grants",
            )
