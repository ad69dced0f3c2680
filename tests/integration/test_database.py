"""Sessions on PostgreSQL: what they are set to, and how long they wait."""

from __future__ import annotations

import signal
import threading
import time

import pytest

import flashsale.database
from flashsale.database import PostgresDatabase, close_database, open_database, session
from flashsale.errors import StoreError, SystemFault
from flashsale.urls import parse_database_url
from tests.support.databases import (
    SLACK_SECONDS,
    ask,
    backend_pid,
    opened,
)
from tests.support.postgres import PrivatePostgres
from tests.support.relays import Relay, black_hole
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    ("name", "default", "expected"),
    [
        ("synchronous_commit", "off", "on"),
        ("default_transaction_isolation", "serializable", "read committed"),
        ("statement_timeout", "0", "10s"),
        ("lock_timeout", "0", "5s"),
        ("idle_in_transaction_session_timeout", "0", "10s"),
        ("timezone", "Asia/Tokyo", "UTC"),
        ("client_encoding", "LATIN1", "UTF8"),
    ],
)
def test_a_session_is_set_as_needed_whatever_the_defaults_are(
    postgres_server: PrivatePostgres, postgres_url: str, name: str, default: str, expected: str
) -> None:
    """Neither the database's default nor an option in the URL can weaken a promise."""
    dbname = postgres_url.rpartition("/")[2]
    administrator = postgres_server.connect()
    administrator.cursor().execute(f"ALTER DATABASE {dbname} SET {name} = '{default}'")
    administrator.close()

    with opened(f"{postgres_url}?options=-c%20{name}%3D{default}") as database:
        assert ask(database, f"SHOW {name}") == expected


def test_a_server_that_may_lose_commits_is_refused_until_it_is_mended() -> None:
    """Each refusal gives its connection back, so the pool's only place is free each time."""
    with (
        PrivatePostgres(settings={"fsync": "off"}) as server,
        opened(server.url() + "?connection_limit=1&pool_timeout=1") as database,
    ):
        for _ in range(2):
            with pytest.raises(SystemFault, match="set fsync=on and reload"):
                ask(database, "SELECT 1")


def test_a_thread_that_finds_no_free_connection_waits_as_long_as_it_is_told(
    postgres_url: str,
) -> None:
    faults: list[StoreError] = []
    with opened(postgres_url + "?connection_limit=1&pool_timeout=1") as database:

        def use_another() -> None:
            try:
                ask(database, "SELECT 1")
            except StoreError as fault:
                faults.append(fault)

        with session(database):
            begun = time.monotonic()
            thread = threading.Thread(target=use_another)
            thread.start()
            thread.join()
            waited = time.monotonic() - begun

    (fault,) = faults
    assert isinstance(fault, SystemFault)
    assert "connection_limit" in str(fault)
    assert 1 <= waited < 1 + SLACK_SECONDS


def test_a_thread_that_finds_no_free_connection_gets_the_next_one(postgres_url: str) -> None:
    answers: list[object] = []
    with opened(postgres_url + "?connection_limit=1&pool_timeout=10") as database:
        thread = threading.Thread(target=lambda: answers.append(ask(database, "SELECT 1")))
        with session(database):
            thread.start()
        thread.join()

    assert answers == [1]


def test_a_session_that_stays_read_only_is_not_used_again(postgres_url: str) -> None:
    """After a failover, the sessions of the old primary may live on and never write again."""
    with opened(postgres_url) as database:
        with session(database):
            database.execute_sql("SET default_transaction_read_only = on")
        with pytest.raises(SystemFault):
            ask(database, "CREATE TABLE anything ()")

        assert ask(database, "SHOW default_transaction_read_only") == "off"


def test_an_interrupt_within_a_statement_is_no_fault_of_the_database(postgres_url: str) -> None:
    """Ctrl-C ends the statement by ending its connection, so the rollback fails as well."""
    database = open_database(parse_database_url(postgres_url))
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), session(database), database.atomic():
            database.execute_sql("SELECT pg_sleep(5)")
    finally:
        timer.join()
        close_database(database)


def test_nested_sessions_share_a_connection(postgres_url: str) -> None:
    with opened(postgres_url + "?connection_limit=1&pool_timeout=1") as database, session(database):
        assert backend_pid(database) == backend_pid(database)


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flashsale.database, "CONNECT_TIMEOUT_SECONDS", 0.3)
    begun = time.monotonic()
    with (
        black_hole() as port,
        opened(
            f"postgresql://user@127.0.0.1:{port}/name", statement_timeout_seconds=60
        ) as database,
        pytest.raises(SystemFault, match="did not answer"),
    ):
        ask(database, "SELECT 1")

    assert time.monotonic() - begun < 0.3 + SLACK_SECONDS


def test_a_connection_that_falls_silent_is_given_up_and_replaced(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    """The server's own timeout cannot be heard: the client's comes a second later."""
    with Relay(postgres_server.port) as relay:
        url = postgres_url.replace(f":{postgres_server.port}/", f":{relay.port}/")
        with opened(url, statement_timeout_seconds=0.2) as database:
            assert ask(database, "SELECT 1") == 1
            relay.stall()
            begun = time.monotonic()
            with pytest.raises(SystemFault, match="did not answer"):
                ask(database, "SELECT 1")
            assert time.monotonic() - begun < 1.2 + SLACK_SECONDS

            relay.resume()
            assert ask(database, "SELECT 1") == 1


def test_hurry_reaches_a_call_that_waits_already(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    faults: list[StoreError] = []
    with Relay(postgres_server.port) as relay:
        url = postgres_url.replace(f":{postgres_server.port}/", f":{relay.port}/")
        with opened(url, statement_timeout_seconds=60) as database:
            assert isinstance(database, PostgresDatabase)

            def sleep() -> None:
                try:
                    ask(database, "SELECT pg_sleep(60)")
                except StoreError as fault:
                    faults.append(fault)

            thread = threading.Thread(target=sleep)
            thread.start()
            administrator = postgres_server.connect()
            cursor = administrator.cursor()

            def sleeps() -> bool:
                cursor.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'"
                    " AND state = 'active' AND pid <> pg_backend_pid()"
                )
                return cursor.fetchone() is not None

            wait_until(sleeps, 5, "the statement runs")
            administrator.close()

            begun = time.monotonic()
            database.hurry(begun + 0.1)
            thread.join()
            waited = time.monotonic() - begun

    assert waited < 0.1 + SLACK_SECONDS
    assert [type(fault) for fault in faults] == [SystemFault]


def test_hurry_reaches_a_thread_that_waits_for_a_connection(postgres_url: str) -> None:
    faults: list[StoreError] = []
    with opened(postgres_url + "?connection_limit=1&pool_timeout=60") as database:
        assert isinstance(database, PostgresDatabase)

        def use_another() -> None:
            try:
                ask(database, "SELECT 1")
            except StoreError as fault:
                faults.append(fault)

        thread = threading.Thread(target=use_another)
        with session(database):
            thread.start()
            begun = time.monotonic()
            database.hurry(begun + 0.1)
            thread.join(10)
            waited = time.monotonic() - begun

    assert [type(fault) for fault in faults] == [SystemFault]
    assert waited < 0.1 + SLACK_SECONDS
