"""A database of several hosts: which one is asked, and which is passed over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import peewee
import pytest

import flashsale.database
from flashsale.errors import TransientFault
from tests.support.databases import (
    SLACK_SECONDS,
    ask,
    assert_unreachable_without_a_secret,
    backend_pid,
    opened,
    terminate,
)
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres, PrivateStandby
from tests.support.relays import black_hole


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
