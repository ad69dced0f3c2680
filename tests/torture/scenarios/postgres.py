"""PostgreSQL that crashes, hangs, loses replies, or has no room left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2

from tests.torture.harness import Round
from tests.torture.proxy import Fault
from tests.torture.scenario import scenario
from tests.torture.scenarios.interventions import altered_role, locked_orders
from tests.torture.stage import MAX_CONNECTIONS, NEIGHBOUR

# The end of every answer of PostgreSQL to a statement outside a transaction: ReadyForQuery, idle.
_READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"
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
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "1"})
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
    with altered_role(round_, "CONNECTION LIMIT 0", "CONNECTION LIMIT -1"):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F13", "a pool of two connections, and a wait of a second for one")
def pool_of_two(round_: Round) -> None:
    round_.start(masters=1, database_query="?connection_limit=2&pool_timeout=1")
    with locked_orders(round_):
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
