"""Transactions that fail for what other transactions do, or for the time they take."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg2

from tests.torture.harness import Round
from tests.torture.scenario import scenario
from tests.torture.scenarios.interventions import (
    altered_role,
    insert_trigger,
    locked_orders,
    refused_inserts,
)
from tests.torture.stage import WORKER

_IMPATIENT = {"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "0.3"}


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
    with altered_role(round_, repeatable, f"RESET {name}"):
        round_.pause(0.5, 1.0)
        with refused_inserts(round_, "40001"):
            round_.pause(0.5, 1.5)
        round_.healed()


@scenario("F17", "an administrator locks the table of orders")
def table_lock(round_: Round) -> None:
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "1"})
    with locked_orders(round_):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F18", "inserts take longer than they may")
def slow_inserts(round_: Round) -> None:
    round_.start(settings=_IMPATIENT)
    with insert_trigger(round_, "PERFORM pg_sleep(0.5)"):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F18.rows", "each row takes so long that only small batches are within the time limit")
def slow_rows(round_: Round) -> None:
    round_.start(settings=_IMPATIENT)
    with insert_trigger(round_, "PERFORM pg_sleep(0.005)", each_row=True):
        round_.load.publish(round_.events.take(300))
        round_.load.stop()
        round_.expect_within(round_.is_quiet, 30, "batches become small enough to be committed")


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
