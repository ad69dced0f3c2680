"""Which class of failure an error of the driver belongs to; a dead letter depends on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import peewee
import psycopg2
import psycopg2.errors
import pytest
from playhouse.pool import MaxConnectionsExceeded

from flashsale.errors import (
    EventFault,
    StoreError,
    SystemFault,
    TransientFault,
    UnclassifiedFault,
)
from flashsale.faults import NoAnswer, fault_of

VALUE = "somebody's user id"

# SQLSTATE, what happened, whose fault it is
POSTGRES = [
    ("22001", "the value is too long for its column", EventFault),
    ("22021", "a character the encoding does not have", EventFault),
    ("22P02", "text that is no uuid", EventFault),
    ("23502", "not-null", EventFault),
    ("23503", "foreign key", EventFault),
    ("23514", "check", EventFault),
    ("40001", "serialization failure", TransientFault),
    ("40003", "the reply to a commit was lost", TransientFault),
    ("40P01", "deadlock", TransientFault),
    ("55P03", "lock timeout", TransientFault),
    ("57014", "statement timeout", TransientFault),
    ("57P01", "the connection was terminated", TransientFault),
    ("57P02", "the server crashed", TransientFault),
    ("57P05", "the connection was idle too long", TransientFault),
    ("08006", "connection failure", SystemFault),
    ("0A000", "a cached plan changed its type", SystemFault),
    ("25006", "read-only", SystemFault),
    ("28P01", "wrong password", SystemFault),
    ("3D000", "no such database", SystemFault),
    ("3F000", "no such schema", SystemFault),
    ("42501", "a grant was revoked", SystemFault),
    ("42703", "no such column", SystemFault),
    ("42P01", "no such table", SystemFault),
    ("53100", "disk full", SystemFault),
    ("53200", "out of memory", SystemFault),
    ("53300", "too many connections", SystemFault),
    ("54000", "a limit exceeded", SystemFault),
    ("55000", "not in the right state", SystemFault),
    ("57P03", "starting up", SystemFault),
    ("58030", "input/output error", SystemFault),
    ("F0000", "configuration file error", SystemFault),
    ("XX001", "data corrupted", SystemFault),
    ("23505", "unique, on another index than ours", UnclassifiedFault),
    ("P0001", "a trigger of somebody's", UnclassifiedFault),
    ("ZZ999", "a code nobody knows", UnclassifiedFault),
]


def postgres_error(sqlstate: str) -> psycopg2.Error:
    """The driver's error for a code; its text quotes a row, as PostgreSQL's do."""
    try:
        error: psycopg2.Error = psycopg2.errors.lookup(sqlstate)(VALUE)
    except KeyError:
        error = psycopg2.DatabaseError(VALUE)
    error.__setstate__({"pgcode": sqlstate})
    return error


def by_peewee(error: Exception) -> peewee.PeeweeException:
    wrapped = peewee.DatabaseError(error)
    wrapped.orig = error
    return wrapped


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [pytest.param(state, kind, id=f"{state}: {what}") for state, what, kind in POSTGRES],
)
def test_a_sqlstate_tells_whose_fault_an_error_is(
    sqlstate: str, expected: type[StoreError]
) -> None:
    for error in (postgres_error(sqlstate), by_peewee(postgres_error(sqlstate))):
        fault = fault_of(error)

        assert type(fault) is expected
        assert fault.sqlstate == sqlstate
        assert sqlstate in str(fault)
        assert VALUE not in str(fault)


@pytest.mark.parametrize(
    ("error", "connected", "expected"),
    [
        (psycopg2.OperationalError(VALUE), True, TransientFault),
        (psycopg2.InterfaceError(VALUE), True, TransientFault),
        (psycopg2.OperationalError(VALUE), False, SystemFault),
        (NoAnswer(VALUE), True, SystemFault),
        (NoAnswer(VALUE), False, SystemFault),
        (psycopg2.DataError(VALUE), True, UnclassifiedFault),
        (psycopg2.ProgrammingError(VALUE), True, UnclassifiedFault),
        (MaxConnectionsExceeded(VALUE), False, SystemFault),
        (peewee.ProgrammingError(VALUE), True, UnclassifiedFault),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_an_error_without_a_sqlstate_is_told_by_its_type(
    error: Exception, connected: bool, expected: type[StoreError]
) -> None:
    """A connection that was lost is bad luck; one that cannot be made is the system's fault."""
    fault = fault_of(error, connected=connected)

    assert type(fault) is expected
    assert fault.sqlstate is None
    assert VALUE not in str(fault)


@pytest.mark.parametrize(
    "error", [ValueError(VALUE), KeyError(VALUE), OSError(VALUE), KeyboardInterrupt()]
)
def test_an_error_of_ours_is_no_fault_of_the_database(error: BaseException) -> None:
    assert fault_of(error) is None


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "file.db", timeout=0, isolation_level=None)) as made:
        made.execute("CREATE TABLE items (name text NOT NULL UNIQUE CHECK (name <> 'bad'))")
        yield made


def sqlite_fault(connection: sqlite3.Connection, statement: str) -> StoreError | None:
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(statement)
    return fault_of(caught.value)


@pytest.mark.parametrize("value", ["NULL", "'bad'"])
def test_a_constraint_of_sqlite_is_the_events_fault(sqlite: sqlite3.Connection, value: str) -> None:
    fault = sqlite_fault(sqlite, f"INSERT INTO items VALUES ({value})")

    assert type(fault) is EventFault


def test_a_locked_sqlite_file_is_bad_luck(tmp_path: Path, sqlite: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(tmp_path / "file.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        assert type(sqlite_fault(sqlite, "INSERT INTO items VALUES ('good')")) is TransientFault


@pytest.mark.parametrize(
    "damage", ["DROP TABLE items", "PRAGMA query_only = 1", "ALTER TABLE items RENAME TO elsewhere"]
)
def test_an_sqlite_file_that_cannot_be_used_is_the_systems_fault(
    sqlite: sqlite3.Connection, damage: str
) -> None:
    sqlite.execute(damage)

    assert type(sqlite_fault(sqlite, "INSERT INTO items VALUES ('good')")) is SystemFault


def test_a_file_that_is_no_database_is_the_systems_fault(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear reader, " * 100)
    with closing(sqlite3.connect(tmp_path / "letter.txt")) as connection:
        assert type(sqlite_fault(connection, "SELECT * FROM sales")) is SystemFault
