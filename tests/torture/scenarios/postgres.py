"""PostgreSQL that crashes, hangs, refuses, is full, or is being operated on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2

from tests.torture.harness import Round
from tests.torture.proxy import Fault
from tests.torture.scenario import scenario
from tests.torture.stage import CANARY_PASSWORD, MAX_CONNECTIONS, NEIGHBOUR, WORKER

# The end of every answer of PostgreSQL to a statement outside a transaction: ReadyForQuery, idle.
_READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"
_SHORT_STATEMENTS = {"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "1"}
_CONSUMER_TIMEOUT_SECONDS = 4


@scenario("F7", "PostgreSQL crashes and starts again")
def crash(round_: Round) -> None:
    round_.start()
    round_.pause(0.3, 1.5)
    round_.stage.postgres.crash()
    round_.pause(0.0, 2.0)
    round_.stage.postgres.start()
    round_.healed()


@scenario("F8", "PostgreSQL down for longer than RabbitMQ lets a delivery stay unacknowledged")
def long_outage(round_: Round) -> None:
    rabbitmq = round_.stage.rabbitmq
    # The tick is how often RabbitMQ looks at the timeout; a minute by default.
    rabbitmq.ctl("eval", _set_of_rabbit("consumer_timeout", _CONSUMER_TIMEOUT_SECONDS * 1_000))
    rabbitmq.ctl("eval", _set_of_rabbit("channel_tick_interval", 1_000))
    try:
        round_.start()
        round_.stage.postgres.stop()
        time.sleep(3 * _CONSUMER_TIMEOUT_SECONDS)
        round_.expect(not round_.logged("broker.connection_lost"), "RabbitMQ closed a channel")
        round_.stage.postgres.start()
        round_.healed()
    finally:
        rabbitmq.ctl("eval", _set_of_rabbit("consumer_timeout", 1_800_000))
        rabbitmq.ctl("eval", _set_of_rabbit("channel_tick_interval", 60_000))


@scenario("F9", "PostgreSQL accepts data and never answers")
def black_hole(round_: Round) -> None:
    round_.start(settings=_SHORT_STATEMENTS)
    round_.pause(0.3, 1.0)
    round_.stage.to_postgres.impose(
        round_.choice.choice([Fault(drop_replies=True), Fault(drop_requests=True)])
    )
    round_.pause(2.0, 5.0)
    round_.stage.to_postgres.heal()
    round_.healed()


@scenario("F10", "the reply to a committed insert is lost, five times")
def lost_reply(round_: Round) -> None:
    round_.start()
    for _ in range(5):
        round_.stage.to_postgres.lose_reply(b"INSERT INTO orders", _READY_FOR_QUERY)
        round_.expect(round_.stage.to_postgres.wait_for_lost_reply(5), "no reply was lost")
        round_.pause(0.0, 0.3)
    round_.healed()


@scenario("F10.audit", "the reply to a committed audit insert is lost, three times")
def lost_audit_reply(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.start()
    for _ in range(3):
        round_.stage.to_postgres.lose_reply(b"INSERT INTO order_audit_trail", _READY_FOR_QUERY)
        round_.expect(round_.stage.to_postgres.wait_for_lost_reply(5), "no reply was lost")
    round_.healed()


@scenario("F11", "every byte to and from PostgreSQL is 200 ms late")
def slow_network(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.start()
    round_.stage.to_postgres.impose(Fault(delay=0.2))
    round_.pause(3.0, 4.0)
    round_.expect(not round_.logged("work.suspended"), "slowness was taken for an outage")
    round_.stage.to_postgres.heal()
    round_.healed()


@scenario("F12", "others have taken all connections of PostgreSQL")
def too_many_connections(round_: Round) -> None:
    round_.start()
    others = []
    try:
        round_.stage.disconnect_workers()
        with suppress(psycopg2.OperationalError):
            for _ in range(MAX_CONNECTIONS):
                url = round_.stage.postgres.url(round_.place.database, NEIGHBOUR)
                others.append(psycopg2.connect(url))
        round_.stage.disconnect_workers()
        round_.pause(1.0, 2.0)
    finally:
        for connection in others:
            connection.close()
    round_.healed()


@scenario("F12.role", "the worker's role may connect no more")
def no_connection_left_to_role(round_: Round) -> None:
    round_.start()
    with _altered_role(round_, "CONNECTION LIMIT 0", "CONNECTION LIMIT -1"):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F13", "a pool of two connections, and a wait of a second for one")
def pool_of_two(round_: Round) -> None:
    round_.start(masters=1, database_query="?connection_limit=2&pool_timeout=1")
    with _locked_orders(round_):
        # One connection is the reconciler's, one waits for the lock, and others wait for that.
        round_.expect_within(
            lambda: round_.logged("work.suspended"), 5, "the exhausted pool is reported"
        )
    round_.healed()


def _cannot_mount() -> str:
    if os.geteuid() == 0 and shutil.which("mount"):
        return ""
    return "only root can mount a small disk"


@scenario("F14", "the disk under the orders is full", missing=_cannot_mount)
def disk_full(round_: Round) -> None:
    with _small_disk(round_) as ballast:
        round_.start()
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65_536))
        round_.pause(3.0, 4.0)
        round_.expect(round_.logged("work.suspended"), "the full disk was not reported")
        ballast.unlink()
        round_.healed()


@scenario("F15", "a deadlock with another transaction")
def deadlock(round_: Round) -> None:
    round_.start(masters=1)
    other = round_.stage.postgres.connect(round_.place.database)
    with other.cursor() as cursor:
        round_.expect_within(lambda: _deadlock(round_, cursor), 20, "a deadlock with a worker")
    other.close()
    round_.healed()


@scenario("F16", "repeatable read by default, and forced serialization failures")
def serialization(round_: Round) -> None:
    name = "default_transaction_isolation"
    repeatable = f"SET {name} = 'repeatable read'"
    round_.start()
    with _altered_role(round_, repeatable, f"RESET {name}"):
        round_.pause(0.5, 1.0)
        with round_.broken_rows("40001"):
            round_.pause(0.5, 1.5)
        round_.healed()


@scenario("F17", "an administrator locks the table of orders")
def table_lock(round_: Round) -> None:
    round_.start(settings=_SHORT_STATEMENTS)
    with _locked_orders(round_):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F18", "inserts take longer than they may")
def slow_inserts(round_: Round) -> None:
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "0.3"})
    round_.query(
        "CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$"
    )
    round_.query("CREATE TRIGGER rest BEFORE INSERT ON orders EXECUTE FUNCTION rest()")
    round_.pause(1.0, 3.0)
    round_.query("DROP FUNCTION rest CASCADE")
    round_.healed()


@scenario("F18.rows", "each row takes so long that only small batches are within the time limit")
def slow_rows(round_: Round) -> None:
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "0.3"})
    round_.query(
        "CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$"
    )
    round_.query("CREATE TRIGGER rest BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION rest()")
    round_.load.publish(round_.events.take(300))
    round_.load.stop()
    wanted = len({event.key for event in round_.load.history.confirmed if event.key})
    round_.expect_within(
        lambda: (round_.orders() or 0) >= wanted, 20, "batches become small enough to be committed"
    )
    round_.query("DROP FUNCTION rest CASCADE")


@scenario("F19", "the server turns read-only, for sessions that stand and for new ones")
def read_only(round_: Round) -> None:
    round_.start()
    administrate = round_.query
    administrate("ALTER SYSTEM SET default_transaction_read_only = on")
    administrate("SELECT pg_reload_conf()")
    round_.pause(1.0, 3.0)
    administrate("ALTER SYSTEM RESET default_transaction_read_only")
    administrate("SELECT pg_reload_conf()")
    round_.healed()


@scenario("F19.session", "the sessions that stand stay read-only, as after a failover")
def read_only_sessions(round_: Round) -> None:
    round_.start()
    name = "default_transaction_read_only"
    with _altered_role(round_, f"SET {name} = on", f"RESET {name}"):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F20.table", "the table of orders is renamed for a while")
def missing_table(round_: Round) -> None:
    _altered(round_, "ALTER TABLE orders RENAME TO away", "ALTER TABLE away RENAME TO orders")


@scenario("F20.column", "a column of orders is renamed for a while")
def missing_column(round_: Round) -> None:
    rename = "ALTER TABLE orders RENAME COLUMN {} TO {}"
    _altered(round_, rename.format("user_id", "away"), rename.format("away", "user_id"))


@scenario("F20.grant", "the right to insert orders is revoked for a while")
def missing_grant(round_: Round) -> None:
    _altered(
        round_,
        f"REVOKE INSERT ON orders FROM {WORKER}",
        f"GRANT INSERT ON orders TO {WORKER}",
    )


@scenario("F20.audit", "the audit trail's table is renamed for a while")
def missing_audit_table(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.start()
    round_.query("ALTER TABLE order_audit_trail RENAME TO away")
    round_.pause(1.0, 3.0)
    round_.query("ALTER TABLE away RENAME TO order_audit_trail")
    round_.healed()


@scenario("F21", "the password is changed, and changed back")
def wrong_password(round_: Round) -> None:
    round_.start()
    with _altered_role(round_, "PASSWORD 'rotated'", f"PASSWORD '{CANARY_PASSWORD}'"):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F22", "PostgreSQL ends the workers' connections, three times")
def ended_connections(round_: Round) -> None:
    round_.start()
    for _ in range(3):
        round_.pause(0.2, 1.0)
        round_.stage.disconnect_workers()
    round_.healed()


@scenario("F22.cut", "connections to PostgreSQL are reset at random")
def cut_connections(round_: Round) -> None:
    round_.start()
    for _ in range(6):
        round_.pause(0.1, 0.6)
        round_.stage.to_postgres.cut_some(round_.choice)
    round_.healed()


def _set_of_rabbit(name: str, milliseconds: int) -> str:
    return f"application:set_env(rabbit, {name}, {milliseconds})."


def _altered(round_: Round, away: str, back: str) -> None:
    """Let the schema be wrong for a while: no event is to blame, so none becomes a dead letter."""
    round_.start()
    round_.query(away)
    try:
        round_.pause(1.5, 3.0)
        round_.expect(round_.logged("work.suspended"), "the wrong schema was not reported")
    finally:
        round_.query(back)
    round_.healed()


@contextmanager
def _locked_orders(round_: Round) -> Iterator[None]:
    """Keep everybody else from the table of orders, as DDL would."""
    administrator = round_.stage.postgres.connect(round_.place.database)
    try:
        with administrator.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        administrator.close()


@contextmanager
def _altered_role(round_: Round, away: str, back: str) -> Iterator[None]:
    """Let the worker's role be another for a while; connections that stand are ended."""
    round_.query(f"ALTER ROLE {WORKER} {away}")
    try:
        round_.stage.disconnect_workers()
        yield
    finally:
        round_.query(f"ALTER ROLE {WORKER} {back}")


def _deadlock(round_: Round, other: Any) -> bool:
    """Lock two orders in the other order than a worker does; whether the server saw a deadlock."""
    first, last = sorted((round_.events.good(), round_.events.good()), key=lambda e: e.key or ())
    insert = "INSERT INTO orders (id, sale_id, user_id) VALUES (gen_random_uuid(), %s, %s)"
    other.execute("BEGIN; SET LOCAL deadlock_timeout = '1min'")  # the worker is to be the victim
    try:
        other.execute(insert, last.key)
        round_.load.publish([first, last])
        round_.expect_within(lambda: _waiting(round_), 5, "a worker waits for a lock")
        with suppress(psycopg2.Error):
            other.execute(insert, first.key)
    finally:
        other.execute("ROLLBACK")
    return bool(_deadlocks(round_))


def _deadlocks(round_: Round) -> int:
    ((count,),) = round_.query(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(count)


def _waiting(round_: Round) -> bool:
    ((waiting,),) = round_.query(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
        " AND query LIKE '%%INSERT INTO orders%%'",
        WORKER,
    )
    return bool(waiting)


@contextmanager
def _small_disk(round_: Round) -> Iterator[Path]:
    """Put the table of orders on a disk of 16 MB; yields the path of a file to fill it with."""
    folder = round_.stage.postgres.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        space = folder / "space"
        space.mkdir()
        owner = (round_.stage.postgres.folder / "data").owner()
        shutil.chown(space, owner)
        round_.query(f"CREATE TABLESPACE small LOCATION '{space}'")
        round_.query("ALTER TABLE orders SET TABLESPACE small")
        yield folder / "ballast"
    finally:
        (folder / "ballast").unlink(missing_ok=True)
        round_.query("ALTER TABLE orders SET TABLESPACE pg_default")
        round_.query("DROP TABLESPACE small")
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
