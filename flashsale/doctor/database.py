"""The database server, examined with the worker's own credentials, and left as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import peewee

from flashsale.database import PostgresDatabase, close_database, open_database, session
from flashsale.doctor.finding import Finding, fail, ok, warn
from flashsale.doctor.replication import examine_hosts, examine_replication
from flashsale.doctor.schema import examine_schema
from flashsale.errors import StoreError, SystemFault
from flashsale.settings import Settings

_ANSWER_SECONDS = 5.0
_SKEW_SECONDS = 1.0
_OLDEST = 12
#: What each session asks for, and a pooler in between may drop.
_OF_THE_SESSION = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "TimeZone": "UTC",
    "statement_timeout": f"{_ANSWER_SECONDS:.0f}s",
}
_BUDGET = """
SELECT current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       -- Of other roles' sessions a user without pg_read_all_stats is told little more than that
       -- they are there, and of which role, which the server's own processes have not.
       (SELECT count(*) FROM pg_stat_activity
        WHERE coalesce(backend_type, 'client backend') = 'client backend'
          AND usesysid IS NOT NULL AND datid IS NOT NULL
          AND application_name IS DISTINCT FROM 'flashsale')
"""


def examine_database(
    settings: Settings, processes: int, *, now: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """All of the database, for a worker of so many processes, in five seconds for each host.

    Raises:
        StoreError: it cannot be reached, is refused for its settings, or fell silent.
    """
    address = settings.database
    database = open_database(address, statement_timeout_seconds=_ANSWER_SECONDS)
    if (
        not address.is_postgres and not Path(address.name).exists()
    ):  # to connect would make the file
        raise SystemFault(f"there is no file {address.name}: run `flashsale migrate`")
    try:
        if isinstance(database, PostgresDatabase):
            yield from examine_hosts(address, _ANSWER_SECONDS)
            database.hurry_in(_ANSWER_SECONDS)
        with session(database):
            if isinstance(database, PostgresDatabase):
                yield _server(database, str(address))
                yield from session_findings(_shown(database))
                yield from _writable(database)
                yield examine_replication(database, len(address.hosts))
                yield _budget(database, address.pool_size, processes)
                yield clock_skew(database, now)
            else:
                yield warn(
                    "database",
                    f"{address} is an SQLite file, which is for trials",
                    "set DATABASE_URL=postgresql://… for a sale",
                )
            yield from examine_schema(database)
    finally:
        close_database(database)


def session_findings(shown: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a session has the settings that it asked for when it was opened."""
    wrong = {name: shown[name] for name, wanted in _OF_THE_SESSION.items() if shown[name] != wanted}
    if wrong:
        found = ", ".join(f"{name} is {value}" for name, value in sorted(wrong.items()))
        yield fail(
            "session",
            f"the session is not as it was asked for: {found}; something between drops its options",
            "connect to PostgreSQL itself, or let the pooler pass startup options on",
        )
    else:
        yield ok("session", "synchronous_commit, isolation and time limits are as asked for")


def clock_skew(database: peewee.Database, now: Callable[[], float]) -> Finding:
    """How far this machine's clock, `now`, is from the server's."""
    begun = now()
    ((there,),) = database.execute_sql(
        "SELECT extract(epoch FROM clock_timestamp())::float8"
    ).fetchall()
    ended = now()
    # What lies between asking and the answer may be the way; only what exceeds it is skew.
    skew = max(there - ended, begun - there, 0.0)
    if skew < _SKEW_SECONDS:
        return ok("clock", "this machine's clock agrees with PostgreSQL's")
    return warn(
        "clock",
        f"this machine's clock is {skew:,.0f} s {'ahead of' if begun > there else 'behind'}"
        " PostgreSQL's: ages and lags are wrong by as much",
        "run NTP on both; `timedatectl` shows whether it does",
    )


def database_away(error: StoreError) -> Finding:
    """What an error that ended the examination says."""
    says, _, remedy = str(error).partition(": ")
    return fail("database", says, remedy or "look at the server and its log, then run this again")


def _server(database: PostgresDatabase, address: str) -> Finding:
    shown = _shown(database)
    says = f"PostgreSQL {shown['server_version'].partition(' ')[0]} at {address}"
    if database.server_version // 10_000 < _OLDEST:
        return warn("database", says, f"flashsale is not tried with it: use {_OLDEST} or later")
    return ok("database", says)


def _shown(database: PostgresDatabase) -> dict[str, str]:
    return {name: value for name, value, _ in database.execute_sql("SHOW ALL").fetchall()}


def _writable(database: PostgresDatabase) -> Iterator[Finding]:
    ((recovering, read_only, whole_pages),) = database.execute_sql(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool,"
        " current_setting('full_page_writes')::bool"
    ).fetchall()
    if recovering:
        yield fail(
            "durability",
            "the server is a standby, or recovers: it takes no order",
            "name the primary in DATABASE_URL, or all hosts and target_session_attrs=read-write",
        )
    elif read_only:
        yield fail(
            "durability",
            "sessions are read-only: no order is taken",
            "ALTER DATABASE … RESET default_transaction_read_only, or the role, or the server's"
            " configuration",
        )
    elif not whole_pages:
        yield warn(
            "durability",
            "full_page_writes is off: a crash of the machine can damage tables",
            "set full_page_writes=on, unless the file system writes pages whole",
        )
    else:
        yield ok("durability", "fsync is on, and the server takes writes")


def _budget(database: PostgresDatabase, pool_size: int, processes: int) -> Finding:
    ((server, role, of_database, others),) = database.execute_sql(_BUDGET).fetchall()
    available = min(limit for limit in (server, role, of_database) if limit >= 0)
    most = pool_size * processes
    says = (
        f"{processes} processes may open {pool_size} connections each, {most} in all; the server"
        f" has {available} for them, of which others use {others} now"
    )
    if most + others <= available:
        return ok("pool", says)
    share = max(2, (available - others) // processes)
    return warn(
        "pool", says, f"lower connection_limit in DATABASE_URL to {share}, or raise max_connections"
    )
