"""What the migrations are made of: create a table or adopt the one that is there, and drop it.

The API's own migration makes the same tables. Whichever runs first makes them; a table that exists
is only looked at, never altered, and refused where flashsale could not work with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import peewee

from flashsale.errors import FlashsaleError

_SQLITE_TEXT = {"text", "varchar"}
# The names that a column's type may have: in PostgreSQL's pg_type, and declared in SQLite.
_ACCEPTED = {
    "uuid": ({"uuid"}, _SQLITE_TEXT),
    "varchar": ({"varchar", "text"}, _SQLITE_TEXT),
    "integer": ({"int4", "int8"}, {"integer", "int"}),
    "timestamptz": ({"timestamptz"}, _SQLITE_TEXT),
    "jsonb": ({"jsonb"}, _SQLITE_TEXT),
}


class MigrationError(FlashsaleError):
    """A migration was refused and nothing was changed; the text names the next step."""


@dataclass(frozen=True)
class Column:
    """A column that must be there: its PostgreSQL type, least length, and need of a default."""

    name: str
    type: str
    length: int | None = None
    has_default: bool = False


@dataclass(frozen=True)
class Table:
    """What an existing table must offer to be adopted.

    `unique` lists the sets of columns that ``ON CONFLICT`` names. Into a table with
    `takes_inserts` the worker writes, so it may have no further column that demands a value.
    """

    name: str
    columns: Sequence[Column]
    unique: Sequence[frozenset[str]]
    takes_inserts: bool = True


@dataclass(frozen=True)
class _FoundColumn:
    type: str
    length: int | None
    not_null: bool
    has_default: bool

    def __str__(self) -> str:
        return f"{self.type}({self.length})" if self.length else self.type


def create_or_adopt(database: peewee.Database, table: Table, statements: Sequence[str]) -> None:
    """Run `statements` where `table` does not exist; where it does, check it and leave it alone.

    Raises:
        MigrationError: naming all that keeps the existing table from being used.
    """
    found = _columns(database, table.name)
    if not found:
        for statement in statements:
            database.execute_sql(statement)
        return
    problems = _misfits(database, table, found)
    if problems:
        raise MigrationError(
            f"table {table.name} exists already and does not fit: {'; '.join(problems)}. Alter it,"
            " or choose another database or schema (?schema=…) in DATABASE_URL; nothing was changed"
        )


def misfits(database: peewee.Database, table: Table) -> list[str] | None:
    """All that keeps an existing table from being used; None where there is no such table."""
    found = _columns(database, table.name)
    return _misfits(database, table, found) if found else None


def drop_if_empty(database: peewee.Database, name: str) -> None:
    """Drop the table `name`; one that is not there is no error.

    Whether the migration made the table or adopted it is written nowhere, so the guard against
    losing somebody's rows is this: a table that holds any is not dropped.

    Raises:
        MigrationError: if the table holds rows.
    """
    if not _columns(database, name):
        return
    if not isinstance(database, peewee.SqliteDatabase):  # there, one writer is the rule
        database.execute_sql(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
    if database.execute_sql(f"SELECT 1 FROM {name} LIMIT 1").fetchone():
        raise MigrationError(
            f"table {name} holds rows and is not dropped: save and delete them first;"
            " nothing was changed"
        )
    database.execute_sql(f"DROP TABLE {name}")


def _misfits(database: peewee.Database, table: Table, found: dict[str, _FoundColumn]) -> list[str]:
    problems = []
    on_sqlite = isinstance(database, peewee.SqliteDatabase)
    for column in table.columns:
        actual = found.get(column.name)
        wanted = f"{column.type}({column.length})" if column.length else column.type
        if actual is None:
            problems.append(f"column {column.name} ({wanted}) is missing")
            continue
        too_short = column.length and actual.length and actual.length < column.length
        if actual.type not in _ACCEPTED[column.type][on_sqlite] or too_short:
            problems.append(f"column {column.name} is {actual}, not {wanted}")
        if column.has_default and not actual.has_default:
            problems.append(f"column {column.name} has no default")
    if table.takes_inserts:
        known = {column.name for column in table.columns}
        problems += [
            f"column {name} demands a value, and flashsale has none for it"
            for name, actual in found.items()
            if name not in known and actual.not_null and not actual.has_default
        ]
    missing = set(table.unique) - _unique_keys(database, table.name)
    problems += [f"({', '.join(sorted(key))}) is not unique" for key in missing]
    return problems


def _columns(database: peewee.Database, table: str) -> dict[str, _FoundColumn]:
    """The table's columns by name; none where there is no such table."""
    if isinstance(database, peewee.SqliteDatabase):
        rows = database.execute_sql(f"PRAGMA table_info({table})").fetchall()
        return {
            name: _FoundColumn(
                declared.lower().partition("(")[0], None, bool(not_null), default is not None
            )
            for _, name, declared, not_null, default, _ in rows
        }
    rows = database.execute_sql(
        """
        SELECT a.attname, t.typname,
               CASE WHEN t.typname = 'varchar' AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
               a.attnotnull, a.atthasdef OR a.attidentity <> ''
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
        """,
        (table,),
    ).fetchall()
    return {name: _FoundColumn(*rest) for name, *rest in rows}


def _unique_keys(database: peewee.Database, table: str) -> set[frozenset[str]]:
    """The sets of columns that an ``ON CONFLICT`` may name: whole, valid, checked at once."""
    if isinstance(database, peewee.SqliteDatabase):
        indexes = database.execute_sql(f"PRAGMA index_list({table})").fetchall()
        return {
            frozenset(
                column
                for _, _, column in database.execute_sql(f'PRAGMA index_info("{name}")').fetchall()
            )
            for _, name, unique, _, partial in indexes
            if unique and not partial
        }
    rows = database.execute_sql(
        """
        SELECT array_agg(a.attname::text)
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid
             AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indimmediate
              AND i.indpred IS NULL AND i.indexprs IS NULL
        GROUP BY i.indexrelid
        """,
        (table,),
    ).fetchall()
    return {frozenset(columns) for (columns,) in rows}
