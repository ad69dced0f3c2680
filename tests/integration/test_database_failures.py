"""What a failure of the database is told as: bad luck, the system's fault or the event's."""

from __future__ import annotations

import secrets
import threading
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsale.database import close_database, open_database, session
from flashsale.errors import EventFault, StoreError, SystemFault, TransientFault
from flashsale.urls import DatabaseAddress
from tests.support.databases import (
    ask,
    assert_unreachable_without_a_secret,
    backend_pid,
    opened,
    terminate,
)
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres
from tests.support.stores import Store, open_store
from tests.support.waiting import wait_until


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
