"""Databases opened for one test, and what is asked of them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import peewee
import pytest

from flashsale.database import close_database, open_database, session
from flashsale.errors import SystemFault
from flashsale.urls import parse_database_url
from tests.support.postgres import PrivatePostgres

# What a bounded wait may last beyond its bound before a test calls it unbounded.
SLACK_SECONDS = 2.0


@contextmanager
def opened(url: str, *, statement_timeout_seconds: float = 10.0) -> Iterator[peewee.Database]:
    database = open_database(
        parse_database_url(url), statement_timeout_seconds=statement_timeout_seconds
    )
    try:
        yield database
    finally:
        close_database(database)


def ask(database: peewee.Database, sql: str) -> object:
    with session(database):
        return database.execute_sql(sql).fetchone()[0]


def backend_pid(database: peewee.Database) -> object:
    return ask(database, "SELECT pg_backend_pid()")


def terminate(server: PrivatePostgres, *pids: object) -> None:
    administrator = server.connect()
    for pid in pids:
        administrator.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    administrator.close()


def assert_unreachable_without_a_secret(url: str, secret: str) -> None:
    with opened(url) as database, pytest.raises(SystemFault) as caught:
        ask(database, "SELECT 1")

    assert "DATABASE_URL" in str(caught.value)
    assert secret not in "".join(traceback.format_exception(caught.value))
