"""A database of several servers: which of them takes writes, and whether commits reach a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from flashsale.database import PostgresDatabase, close_database, open_database, session
from flashsale.doctor.finding import Finding, fail, ok, warn
from flashsale.errors import StoreError
from flashsale.urls import DatabaseAddress

_PAGE = "see docs/clustering.md"
_TAKES_WRITES = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::bool)"
_SYNCHRONOUS = """
SELECT current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_activity
        WHERE usename = current_user AND wait_event = 'SyncRep'
          AND query_start < clock_timestamp() - interval '2 seconds'),
       CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN
         (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) END
"""


def examine_hosts(address: DatabaseAddress, seconds: float) -> Iterator[Finding]:
    """Of several hosts: each that is away, and whether one of them takes writes, and no more."""
    if len(address.hosts) == 1:
        return
    writable: list[str] = []
    others: list[str] = []
    for host in address.hosts:
        alone = replace(
            address,
            parameters={**address.parameters, **host, "target_session_attrs": "any"},
            pool_size=1,
        )
        name = f"{host.get('host', host.get('hostaddr'))}:{host.get('port', '5432')}"
        try:
            (writable if _takes_writes(alone, seconds) else others).append(name)
        except StoreError as error:
            says, _, remedy = str(error).partition(": ")
            yield warn("hosts", f"{name}: {says}", remedy or "look at that server and its log")
    if len(writable) > 1:
        yield fail(
            "hosts",
            f"{' and '.join(writable)} both take writes: orders go to either, and are on one only",
            f"stop the one that is not the primary before anything else, {_PAGE}",
        )
    elif writable:
        standbys = f", {', '.join(others)} follows" if others else ""
        yield ok("hosts", f"{writable[0]} takes writes{standbys}")


def examine_replication(database: PostgresDatabase, hosts: int) -> Finding:
    """Whether commits wait for a standby, and whether one confirms them."""
    ((names, waiting, confirming),) = database.execute_sql(_SYNCHRONOUS).fetchall()
    if not names and hosts > 1:
        return warn(
            "replication",
            "no commit waits for a standby: a failover loses the orders that it has not got yet",
            f"set synchronous_standby_names on the primary, {_PAGE}",
        )
    if not names:
        return ok("replication", "commits wait for no standby")
    if waiting or confirming == 0:
        return fail(
            "replication",
            f"commits wait for a standby ({names}), and none confirms them: no order is confirmed",
            f"start the standby, or take it out of synchronous_standby_names, {_PAGE}",
        )
    return ok("replication", f"commits wait for a standby ({names})")


def _takes_writes(address: DatabaseAddress, seconds: float) -> bool:
    database = open_database(address, statement_timeout_seconds=seconds)
    if isinstance(database, PostgresDatabase):
        database.hurry(time.monotonic() + seconds)
    try:
        with session(database):
            ((takes_writes,),) = database.execute_sql(_TAKES_WRITES).fetchall()
        return bool(takes_writes)
    finally:
        close_database(database)
