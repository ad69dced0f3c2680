"""The one place that tells an event's own fault from bad luck and from the system's.

The class of a failure decides whether an event is dead-lettered, so it follows from codes alone
(SQLSTATE, SQLite's error names), never from the text of a message.
"""

from __future__ import annotations

import re
import sqlite3

import peewee
import psycopg2
from playhouse.pool import MaxConnectionsExceeded

from flashsale.errors import EventFault, StoreError, SystemFault, TransientFault, UnclassifiedFault

# https://www.postgresql.org/docs/15/errcodes-appendix.html
_EVENT_STATES = frozenset({"23502", "23503", "23514"})
_EVENT_CLASSES = frozenset({"22"})
_TRANSIENT_STATES = {
    "40001": "a serialization failure",
    "40P01": "a deadlock",
    "40003": "a statement of unknown outcome",
    "55P03": "a lock was not to be had in time",
    "57014": "the statement ran into its time limit",
    "57P01": "the server closed the connection",
    "57P02": "the server crashed and closed the connection",
    "57P05": "the server closed the connection, which was idle too long for it",
}
_SYSTEM_CLASSES = {
    "08": "the connection failed",
    "0A": "the server does not support the statement",
    "25": "the transaction may not write; is the server read-only or a standby?",
    "28": "the server refused the user or the password: check DATABASE_URL",
    "3D": "there is no such database: check DATABASE_URL, then run `flashsale migrate`",
    "3F": "there is no such schema: run `flashsale migrate`",
    "42": "tables or grants are not as needed: run `flashsale migrate`, then check the grants",
    "53": "the server is out of connections, memory or disk",
    "54": "a limit of the server was exceeded",
    "55": "the server is not in a state to do this",
    "57": "the server is shutting down, starting or recovering",
    "58": "the server's own system failed it",
    "F0": "the server's configuration is damaged",
    "XX": "the server had an internal error",
}
_ROW_ID = re.compile(r"\(([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}), ")
_SQLITE_TRANSIENT = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED"})


class NoAnswer(psycopg2.OperationalError):  # type: ignore[misc]
    """The database accepted what was sent and did not answer before our own deadline."""


class NoHost(psycopg2.OperationalError):  # type: ignore[misc]
    """Of several hosts none could be connected to, or none is as it is asked for."""


def fault_of(error: BaseException, *, connected: bool = True) -> StoreError | None:
    """The failure that `error` means, or None where it did not come from the database.

    `connected` tells whether the connection stood before the error. The text of the result names
    the SQLSTATE and no value of any row.
    """
    if isinstance(error, MaxConnectionsExceeded):  # a ValueError, and yet no value is at fault
        return SystemFault(
            "no connection of the pool became free in time: raise connection_limit in DATABASE_URL"
        )
    cause = getattr(error, "orig", None) or error  # peewee keeps the driver's error there
    if isinstance(cause, psycopg2.Error):
        return _postgres_fault(cause, connected)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_fault(cause)
    if isinstance(error, peewee.PeeweeException):
        return UnclassifiedFault(f"the database layer failed with {type(error).__name__}")
    return None


def _postgres_fault(error: psycopg2.Error, connected: bool) -> StoreError:
    state = error.pgcode
    if state is None:
        return _fault_without_state(error, connected)
    if state in _EVENT_STATES or state[:2] in _EVENT_CLASSES:
        # "Failing row contains (…": whatever the language, its first column, our own random id.
        row = _ROW_ID.search(error.diag.message_detail or "")
        return EventFault(
            f"refused by {error.diag.constraint_name or 'a type'}",
            sqlstate=state,
            row_id=row and row[1],
        )
    if state in _TRANSIENT_STATES:
        return TransientFault(_TRANSIENT_STATES[state], sqlstate=state)
    if state[:2] in _SYSTEM_CLASSES:
        return SystemFault(_SYSTEM_CLASSES[state[:2]], sqlstate=state)
    return UnclassifiedFault("the database refused the statement", sqlstate=state)


def _fault_without_state(error: psycopg2.Error, connected: bool) -> StoreError:
    if isinstance(error, NoAnswer):
        return SystemFault("the database did not answer in time")
    if isinstance(error, NoHost):
        return SystemFault(
            "none of the database's hosts can be reached and takes writes: check hosts, user,"
            " password and name in DATABASE_URL, and whether one of the servers is a primary"
        )
    if not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return UnclassifiedFault(f"the driver failed with {type(error).__name__}")
    if connected:
        return TransientFault("the connection to the database was lost")
    # The driver tells a wrong password from a server that is away by its text alone.
    return SystemFault(
        "the database cannot be reached: check host, user, password and name in DATABASE_URL, and"
        " the server"
    )


def _sqlite_fault(error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_CONSTRAINT"):
        return EventFault("refused by a constraint of SQLite")
    if any(name.startswith(transient) for transient in _SQLITE_TRANSIENT):
        return TransientFault("the SQLite file is locked by another process")
    return SystemFault(
        "SQLite cannot use its file or its tables: check that the folder exists, and that"
        " `flashsale migrate` has made the tables"
    )
