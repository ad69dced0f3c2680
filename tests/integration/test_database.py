"""Sessions on PostgreSQL: what they are set to, how long they wait, what their failures say."""

from __future__ import annotations

import secrets
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee
import pytest

import flashsale.database
from flashsale.database import PostgresDatabase, close_database, open_database, session
from flashsale.errors import EventFault, StoreError, SystemFault, TransientFault
from flashsale.urls import DatabaseAddress, parse_database_url
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres, PrivateStandby
from tests.support.relays import Relay, black_hole
from tests.support.stores import Store, open_store
from tests.support.waiting import wait_until

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


def test_the_time_limit_of_a_statement_is_the_servers(postgres_url: str) -> None:
    """It speaks before the client gives up, and the connection lives on."""
    with opened(postgres_url, statement_timeout_seconds=0.2) as database:
        pid = backend_pid(database)
        with pytest.raises(TransientFault, match="57014"):
            ask(database, "SELECT pg_sleep(60)")

        assert backend_pid(database) == pid


def test_a_connection_that_was_ended_is_one_piece_of_bad_luck(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    """However many idle ones ended with it: none of them is tried."""
    with opened(postgres_url) as database:
        pids: list[object] = []
        both = threading.Barrier(2)

        def connect() -> None:
            with session(database):
                pids.append(backend_pid(database))
                both.wait(10)

        threads = [threading.Thread(target=connect) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        terminate(postgres_server, *pids)

        with pytest.raises(TransientFault):
            ask(database, "SELECT 1")
        assert backend_pid(database) not in pids


def test_a_connection_that_ends_under_a_statement_is_bad_luck(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    with opened(postgres_url) as database:
        with session(database):
            terminate(postgres_server, backend_pid(database))
            with pytest.raises(TransientFault):
                ask(database, "SELECT 1")

        assert ask(database, "SELECT 1") == 1


@pytest.fixture
def role_with_password(postgres_server: PrivatePostgres) -> Iterator[str]:
    """A role that must give its password, on a server that trusts everybody else."""
    role, password = f"role_{uuid.uuid4().hex}", secrets.token_hex()
    rules = postgres_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    administrator = postgres_server.connect()
    cursor = administrator.cursor()
    cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    cursor.execute("SELECT pg_reload_conf()")
    wait_until(
        lambda: (
            cursor.execute("SELECT 1 FROM pg_hba_file_rules WHERE %s = ANY (user_name)", [role])
            or cursor.fetchone()
        ),
        5,
        "the rule is in force",
    )
    yield role
    rules.write_text(before)
    cursor.execute("SELECT pg_reload_conf()")
    cursor.execute(f"DROP ROLE {role}")
    administrator.close()


def assert_unreachable_without_a_secret(url: str, secret: str) -> None:
    with opened(url) as database, pytest.raises(SystemFault) as caught:
        ask(database, "SELECT 1")

    assert "DATABASE_URL" in str(caught.value)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_password_is_the_systems_fault_and_not_shown(
    postgres_server: PrivatePostgres, role_with_password: str
) -> None:
    url = (
        f"postgresql://{role_with_password}:wrong-secret@127.0.0.1:{postgres_server.port}/flashsale"
    )

    assert_unreachable_without_a_secret(url, "wrong-secret")


def test_an_unknown_database_is_the_systems_fault(postgres_server: PrivatePostgres) -> None:
    url = f"postgresql://postgres:my-secret@127.0.0.1:{postgres_server.port}/nowhere"

    assert_unreachable_without_a_secret(url, "my-secret")


def test_a_refused_connection_is_the_systems_fault() -> None:
    assert_unreachable_without_a_secret(
        f"postgresql://user:my-secret@127.0.0.1:{free_port()}/name", "my-secret"
    )


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("INSERT INTO orders (id, sale_id, user_id) VALUES ('{id}', '{id}', '{user}')", EventFault),
        ("SELECT '{user}'::uuid", EventFault),
        ("SELECT {user}", SystemFault),
    ],
)
def test_a_fault_tells_no_value_of_a_row(
    postgres_url: str, statement: str, fault: type[StoreError]
) -> None:
    """Not even a traceback does, whose cause would quote the row."""
    canary = f"user_{uuid.uuid4().hex}"
    with opened(postgres_url) as database, pytest.raises(fault) as caught:
        ask(database, statement.format(id=uuid.uuid4(), user=canary))

    assert canary not in "".join(traceback.format_exception(caught.value))


def test_an_error_that_is_not_the_databases_passes_and_frees_the_connection(
    postgres_url: str,
) -> None:
    with opened(postgres_url + "?connection_limit=1&pool_timeout=1") as database:
        pid = backend_pid(database)
        with pytest.raises(ZeroDivisionError), session(database):
            _ = 1 / 0

        assert backend_pid(database) == pid


def test_sqlite_waits_for_its_file_as_long_as_postgres_for_a_lock(tmp_path: Path) -> None:
    address = DatabaseAddress("sqlite", str(tmp_path / "flashsale.db"))
    database = open_database(address, statement_timeout_seconds=0.2)
    try:
        assert ask(database, "PRAGMA busy_timeout") == 100
    finally:
        close_database(database)


def test_an_sqlite_file_that_another_process_writes_is_bad_luck(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/flashsale.db"
    with (
        open_store(url) as other,
        open_store(url, statement_timeout_seconds=0.2) as store,
        session(other.database),
        other.database.transaction("IMMEDIATE"),
        pytest.raises(TransientFault),
    ):
        Store(store.database).add_sale()


@contextmanager
def opened_at(server: PrivatePostgres, *hosts: str, query: str = "") -> Iterator[peewee.Database]:
    """A database with several hosts, of which `server` is the last."""
    where = ",".join([*hosts, f"127.0.0.1:{server.port}"])
    with opened(f"postgresql://postgres@{where}/flashsale{query}") as database:
        yield database


def test_of_several_hosts_one_that_says_nothing_is_passed_over(
    postgres_server: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flashsale.database, "CONNECT_TIMEOUT_SECONDS", 0.3)
    begun = time.monotonic()
    with (
        black_hole() as silent,
        opened_at(postgres_server, f"127.0.0.1:{silent}", f"127.0.0.1:{free_port()}") as database,
    ):
        assert ask(database, "SELECT inet_server_port()") == postgres_server.port

    assert time.monotonic() - begun < 0.3 + SLACK_SECONDS


def test_the_host_that_answered_is_the_first_to_be_asked_again(
    postgres_server: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old primary that comes back does not draw a running worker to it."""
    monkeypatch.setattr(flashsale.database, "CONNECT_TIMEOUT_SECONDS", 1.0)
    with black_hole() as silent, opened_at(postgres_server, f"127.0.0.1:{silent}") as database:
        pid = backend_pid(database)
        terminate(postgres_server, pid)
        with pytest.raises(TransientFault):
            ask(database, "SELECT 1")
        begun = time.monotonic()
        assert backend_pid(database) != pid
        assert time.monotonic() - begun < 1.0


def test_of_several_hosts_one_that_takes_no_writes_is_passed_over(
    postgres_server: PrivatePostgres,
) -> None:
    """Without a word in DATABASE_URL; with one, that counts."""
    with PrivateStandby(postgres_server) as standby:
        host = f"127.0.0.1:{standby.port}"
        with opened_at(postgres_server, host) as database:
            assert ask(database, "SELECT inet_server_port()") == postgres_server.port
        with opened_at(postgres_server, host, query="?target_session_attrs=any") as database:
            assert ask(database, "SELECT inet_server_port()") == standby.port


def test_no_host_that_takes_writes_is_the_systems_fault() -> None:
    url = f"postgresql://user:my-secret@127.0.0.1:{free_port()},127.0.0.1:{free_port()}/name"

    assert_unreachable_without_a_secret(url, "my-secret")
