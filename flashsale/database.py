"""The pool of database connections: what each session is set to, how long one may block us.

Two databases are spoken: PostgreSQL, for which the promises are made, and SQLite, for the demo and
for tests. Which class of failure an error belongs to is told in :mod:`flashsale.faults`.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee
import psycopg2
import psycopg2.extensions
from playhouse.pool import (
    MaxConnectionsExceeded,
    PooledPostgresqlDatabase,
    PooledSqliteDatabase,
)

from flashsale.errors import StoreError, SystemFault
from flashsale.faults import NoAnswer, NoHost, fault_of
from flashsale.urls import DatabaseAddress

# For each host. libpq's own connect_timeout is of no effect where the client waits in a callback,
# as ours does.
CONNECT_TIMEOUT_SECONDS = 3.0
# The server's own timeout should be the one that speaks: it names the statement's fate. The
# client's comes later, for a server or a network that does not answer at all.
CLIENT_GRACE_SECONDS = 1.0
_LOCK_TIMEOUT_SHARE = 0.5
_DEADLINE_CHECK_SECONDS = 0.25
# SQLSTATEs of the last words on a connection: the server shuts down, crashed, or ended it. And
# "read-only", which a session can stay after a failover though a new one would be allowed to write.
_CONNECTION_SPENT = ("57P", "25006")

# https://www.postgresql.org/docs/15/runtime-config-client.html
_SESSION = {
    "application_name": "flashsale",
    # An administrator's default of "off" would silently break "acknowledge only after the write".
    "synchronous_commit": "on",
    # Higher levels turn ON CONFLICT DO NOTHING into serialization failures.
    "default_transaction_isolation": r"read\ committed",
    "timezone": "UTC",
    # What is told to the client is then worth a look; see PostgresDatabase.warned().
    "client_min_messages": "warning",
}


def open_database(
    address: DatabaseAddress, *, statement_timeout_seconds: float = 5.0
) -> peewee.Database:
    """A pooled database that connects on first use, in each thread, inside :func:`session`.

    The pool holds at most ``address.pool_size`` connections; a thread that finds none free waits
    ``address.pool_timeout_seconds``. Thread-safe. Must not be opened before a fork.
    """
    if address.is_postgres:
        return PostgresDatabase(address, statement_timeout_seconds)
    database: peewee.Database = PooledSqliteDatabase(
        address.name,
        pragmas={
            "journal_mode": "wal",
            "foreign_keys": 1,
            "synchronous": "full",
            "busy_timeout": round(statement_timeout_seconds * _LOCK_TIMEOUT_SHARE * 1000),
        },
        autoconnect=False,
        max_connections=address.pool_size,
        timeout=address.pool_timeout_seconds,
        check_same_thread=False,  # the pool hands a connection from thread to thread, one at a time
    )
    return database


@contextmanager
def session(database: peewee.Database) -> Iterator[peewee.Database]:
    """A connection for the calling thread, with driver errors raised as :class:`StoreError`.

    Statements outside ``database.atomic()`` commit one by one. Nested sessions of a thread share
    the connection.

    Raises:
        StoreError: the branch says what to do; see :mod:`flashsale.errors`.
    """
    connected = False
    try:
        with database.connection_context():
            connected = True
            yield database
    except StoreError:
        raise
    except Exception as error:
        if (interrupt := _interrupt_behind(error)) is not None:
            raise interrupt from None
        fault = fault_of(error, connected=connected)
        if fault is None:  # not the database's: a mistake of ours must not pass for an outage
            raise
        spent = fault.sqlstate is None or fault.sqlstate.startswith(_CONNECTION_SPENT)
        if spent and isinstance(database, PostgresDatabase):
            # What broke this connection (a restart, a failover) has broken the idle ones too.
            database.close_idle()
        # The driver's own text is cut off here: it quotes values of rows.
        raise fault from None


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that ended a statement and its connection, so that the rollback failed too."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def close_database(database: peewee.Database) -> None:
    """Close every connection of the pool, also those in use."""
    database.close_all()  # type: ignore[attr-defined]  # every pool has it


class _BoundedConnection(psycopg2.extensions.connection):  # type: ignore[misc]
    """A connection on which no call blocks longer than its database's patience."""

    patience: PostgresDatabase


class PostgresDatabase(PooledPostgresqlDatabase):  # type: ignore[misc]
    """The pool for PostgreSQL. Make one with :func:`open_database`."""

    def __init__(self, address: DatabaseAddress, statement_timeout_seconds: float) -> None:
        self._statement_timeout_seconds = statement_timeout_seconds
        self._give_up_at: float | None = None
        self._hosts = address.hosts
        self._connection_class = type(
            "BoundedConnection", (_BoundedConnection,), {"patience": self}
        )
        parameters: dict[str, Any] = {
            "keepalives_idle": "10",
            "keepalives_interval": "5",
            "keepalives_count": "3",
            # Of several hosts one takes writes, and which one that is may change.
            **({"target_session_attrs": "read-write"} if len(self._hosts) > 1 else {}),
            **address.parameters,
            # Whatever the database's own is, or PGCLIENTENCODING: in another one the driver itself
            # would fail at most user ids, and take their neighbours along.
            "client_encoding": "UTF8",
            "connection_factory": self._connect_to_a_host,
        }
        parameters["options"] = " ".join(
            [parameters.get("options", ""), *self._session_options()]
        ).strip()
        # psycopg2 knows one callback for the process. Connections that are not ours wait in it
        # as long as they like, as they would without it.
        psycopg2.extensions.set_wait_callback(_wait_within_patience)
        super().__init__(
            address.name,
            autoconnect=False,
            max_connections=address.pool_size,
            **parameters,
        )
        self._pool_timeout_seconds = address.pool_timeout_seconds

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Wait for a free connection as the pool would, but not past :meth:`hurry`'s time."""
        until = time.monotonic() + self._pool_timeout_seconds
        while True:
            try:
                return bool(super().connect(reuse_if_open))
            except MaxConnectionsExceeded:
                remaining = self._hurried(until) - time.monotonic()
                if remaining <= 0:
                    raise
                with self._pool_available:
                    self._pool_available.wait(min(remaining, _DEADLINE_CHECK_SECONDS))

    def hurry(self, give_up_at: float) -> None:
        """Let no call wait past `give_up_at` (``time.monotonic()``), also those that wait now."""
        self._give_up_at = give_up_at

    def hurry_in(self, seconds: float) -> None:
        """Let no call wait past `seconds` from now, and more only for hosts that say nothing."""
        others = len(self._hosts) - 1
        self.hurry(time.monotonic() + seconds + others * CONNECT_TIMEOUT_SECONDS)

    def warned(self) -> bool:
        """Whether the server has warned of something since this was last asked.

        Only on the thread's connection, inside :func:`session`.
        """
        notices = self.connection().notices
        told = bool(notices)
        notices.clear()
        return told

    def deadline(self, *, connecting: bool = False) -> float:
        """The ``time.monotonic()`` at which a call that starts now is given up."""
        seconds = self._statement_timeout_seconds + CLIENT_GRACE_SECONDS
        if connecting:
            seconds = min(seconds, CONNECT_TIMEOUT_SECONDS)
        return self._hurried(time.monotonic() + seconds)

    def _hurried(self, until: float) -> float:
        return until if self._give_up_at is None else min(until, self._give_up_at)

    def _session_options(self) -> list[str]:
        timeout = self._statement_timeout_seconds
        settings = _SESSION | {
            "statement_timeout": f"{timeout * 1000:.0f}",
            "lock_timeout": f"{timeout * _LOCK_TIMEOUT_SHARE * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{timeout * 1000:.0f}",
        }
        return [f"-c {name}={value}" for name, value in settings.items()]

    def _connect(self) -> Any:
        connection = super()._connect()
        if not getattr(connection, "checked", False):
            try:
                _refuse_unsafe_server(connection)
            except BaseException:
                self._close(connection, close_conn=True)  # or it would fill a place of the pool
                raise
            connection.checked = True
        return connection

    def _connect_to_a_host(self, dsn: str) -> Any:
        """A connection to the first host that takes one, beginning with the one it was last.

        libpq would try them one after the other too, and stay with the first that says nothing.
        """
        hosts = self._hosts
        for position, host in enumerate(hosts):
            try:
                connection = self._connection_class(psycopg2.extensions.make_dsn(dsn, **host))
            except psycopg2.OperationalError:
                if len(hosts) == 1:
                    raise
            else:
                self._hosts = hosts[position:] + hosts[:position]
                return connection
        raise NoHost

    def _is_closed(self, conn: Any) -> bool:
        # Not the stock check, which asks the server before each use: a connection that died while
        # idle shows as one transient failure, and the batch is tried again on a new one.
        return bool(conn.closed)


def _refuse_unsafe_server(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW fsync")
        (fsync,) = cursor.fetchone()
    if fsync != "on":
        raise SystemFault(
            "PostgreSQL runs with fsync=off, so a crash could lose acknowledged orders:"
            " set fsync=on and reload the server"
        )


def _wait_within_patience(connection: Any) -> None:
    """Wait for the server as libpq would, up to the connection's deadline.

    Server-side timeouts and TCP keepalives do not end the wait for a server that accepts data and
    never answers; only the client's own clock does. psycopg2 closes the connection on the error.
    """
    patience: PostgresDatabase | None = getattr(connection, "patience", None)
    connecting = connection.status == psycopg2.extensions.STATUS_SETUP
    until = patience.deadline(connecting=connecting) if patience else math.inf
    poller = select.poll()
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        reading = state == psycopg2.extensions.POLL_READ
        poller.register(connection.fileno(), select.POLLIN if reading else select.POLLOUT)
        if patience is None:
            poller.poll()
            continue
        # Asked again each time, since a shutdown may have brought the deadline forward.
        remaining = min(until, patience.deadline()) - time.monotonic()
        if remaining <= 0:
            raise NoAnswer
        poller.poll(min(remaining, _DEADLINE_CHECK_SECONDS) * 1000)
