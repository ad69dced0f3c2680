"""What others do to the database of a round for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.torture.harness import Round
from tests.torture.stage import WORKER


@contextmanager
def altered_role(round_: Round, away: str, back: str) -> Iterator[None]:
    """Let the worker's role be another for a while; connections that stand are ended."""
    round_.query(f"ALTER ROLE {WORKER} {away}")
    try:
        round_.stage.disconnect_workers()
        yield
    finally:
        round_.query(f"ALTER ROLE {WORKER} {back}")


@contextmanager
def locked_orders(round_: Round) -> Iterator[None]:
    """Keep everybody else from the table of orders, as DDL would."""
    administrator = round_.stage.postgres.connect(round_.place.database)
    try:
        with administrator.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        administrator.close()


@contextmanager
def refused_inserts(round_: Round, sqlstate: str) -> Iterator[None]:
    """Let PostgreSQL refuse every insert of orders with this SQLSTATE."""
    with insert_trigger(round_, f"RAISE EXCEPTION 'torture' USING ERRCODE = '{sqlstate}'"):
        yield


@contextmanager
def insert_trigger(round_: Round, statement: str, *, each_row: bool = False) -> Iterator[None]:
    """Let PostgreSQL run a statement before each insert of orders, or before each row."""
    round_.query(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {statement}; RETURN NEW; END $$"
    )
    level = "ROW" if each_row else "STATEMENT"
    round_.query(
        f"CREATE TRIGGER meddle BEFORE INSERT ON orders FOR EACH {level} EXECUTE FUNCTION meddle()"
    )
    try:
        yield
    finally:
        round_.query("DROP FUNCTION meddle CASCADE")
