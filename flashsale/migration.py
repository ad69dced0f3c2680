"""Bring the database to the tables this version needs, once, however many ask at the same time.

peewee-migrate keeps the history and runs the numbered files of ``migrations/``. Around it, here:
one transaction for all of them, so that a failure leaves nothing behind, and a lock, which it
lacks: two that start together would both create its history table, and one would fail.

Call these functions before other threads of the process use a database: peewee-migrate replays
the finished migrations under patches of Peewee that all threads see.
"""

from __future__ import annotations

import logging
import runpy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import peewee
from peewee_migrate import Router
from peewee_migrate.models import MIGRATE_TABLE

from flashsale.adoption import MigrationError, Table
from flashsale.database import session
from flashsale.errors import StoreError

__all__ = ["MigrationError", "MigrationState", "migrate", "roll_back", "status", "tables"]

_LOCK_KEY = int.from_bytes(b"flashmig")
_FIRST = "001_create_sales.py"

# Where the session's own explanation would send the reader back to `flashsale migrate`.
_EXPLANATIONS = {
    "55P03": "another migration, or a transaction that uses these tables, did not end in time:"
    " find it in pg_stat_activity or wait for it, then run this again; nothing was changed",
    "42501": "the user of DATABASE_URL may not create or read these tables: GRANT it CREATE and"
    " USAGE on the schema, or migrate as their owner; nothing was changed",
    "3F000": "the schema of DATABASE_URL does not exist: CREATE SCHEMA first; nothing was changed",
}


class MigrationState(NamedTuple):
    """A migration of this version, and whether the database has it."""

    name: str
    applied: bool


def migrate(
    database: peewee.Database, *, up_to: str | None = None, fake: bool = False
) -> list[str]:
    """Apply the migrations that are missing, all or none, and return their names in order.

    Safe to run many at a time: one works, the others wait for the lock as long as the session's
    ``lock_timeout`` and then find nothing to do. If nothing is missing nothing is written, so a
    user without the right to create tables may call it as well.

    Args:
        up_to: stop after this one.
        fake: only record them as applied.

    Raises:
        MigrationError: a table in the way does not fit, or `up_to` is unknown.
        StoreError: the database failed; nothing was changed.
    """
    names = _names()
    if up_to is not None:
        names = names[: _position(up_to, names) + 1]
    if all(state.applied for state in status(database) if state.name in names):
        return []
    router = _router(database)
    with _alone(database):
        applied = router.done
        missing = [name for name in names if name not in applied]
        if not missing:
            return []
        _refuse_newer(applied)
        done: list[str] = router.run(missing[-1], fake=fake)
        return done


def roll_back(database: peewee.Database, name: str) -> list[str]:
    """Undo the migrations down to and including `name`, newest first, and return their names.

    Their tables are dropped, if they hold no rows.

    Raises:
        MigrationError: a table holds rows, or `name` is unknown or not applied.
        StoreError: the database failed; nothing was changed.
    """
    _position(name, _names())
    router = _router(database)
    with _alone(database):
        applied = router.done
        if name not in applied:
            raise MigrationError(f"{name} is not applied, so there is nothing to roll back")
        _refuse_newer(applied)
        undone = applied[applied.index(name) :][::-1]
        for _ in undone:
            router.rollback()
        return undone


def status(database: peewee.Database) -> list[MigrationState]:
    """Which migrations of this version the database has. Writes nothing, not even a history.

    Raises:
        StoreError: the database failed.
    """
    applied: set[str] = set()
    # Merely connecting would create the file of an SQLite database.
    on_sqlite = isinstance(database, peewee.SqliteDatabase)
    if not (on_sqlite and database.is_closed() and not Path(database.database).exists()):
        with _explained(), session(database):
            if database.table_exists(MIGRATE_TABLE):
                rows = database.execute_sql(f"SELECT name FROM {MIGRATE_TABLE}").fetchall()
                applied = {name for (name,) in rows}
    return [MigrationState(name, name in applied) for name in _names()]


def tables() -> list[tuple[Table, Sequence[str]]]:
    """The tables that the migrations make, each with the statements of its indexes."""
    found = []
    for name in _names():
        of_file = runpy.run_path(str(_folder() / f"{name}.py"))
        made = [value for value in of_file.values() if isinstance(value, Table)]
        found += [(table, of_file.get("INDEXES", ())) for table in made]
    return found


@contextmanager
def _alone(database: peewee.Database) -> Iterator[None]:
    """One transaction beside which no other migration runs; the router's own nest in it."""
    on_sqlite = isinstance(database, peewee.SqliteDatabase)
    begin = ("IMMEDIATE",) if on_sqlite else ()
    with _explained(), session(database), database.transaction(*begin):
        if not on_sqlite:
            database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        yield


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        explanation = _EXPLANATIONS.get(error.sqlstate or "")
        if explanation is None:
            raise
        raise type(error)(explanation, sqlstate=error.sqlstate) from None


def _router(database: peewee.Database) -> Router:
    # It logs a traceback for every failure, and the failure itself reaches our caller anyway.
    logging.getLogger("peewee_migrate").setLevel(logging.CRITICAL + 1)
    return Router(database, migrate_dir=_folder())


def _folder() -> Path:
    """The migrations of an installed flashsale, or of the checkout it runs from."""
    package = Path(__file__).resolve().parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / _FIRST).is_file():
            return folder
    # Never the router's answer: it creates a missing folder and finds nothing to do in it.
    raise MigrationError("this installation has no migrations: install flashsale again")


def _names() -> list[str]:
    return sorted(file.stem for file in _folder().iterdir() if Router.filemask.match(file.name))


def _position(name: str, names: list[str]) -> int:
    if name not in names:
        raise MigrationError(f"there is no migration {name!r}; there are {', '.join(names)}")
    return names.index(name)


def _refuse_newer(applied: list[str]) -> None:
    newer = sorted(set(applied) - set(_names()))
    if newer:
        raise MigrationError(
            f"a newer flashsale has migrated this database ({', '.join(newer)}):"
            " use that version; nothing was changed"
        )
