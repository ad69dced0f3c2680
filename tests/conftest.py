"""Fixtures that many tests share. Servers start when the first test asks for them."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import pytest

from flashsale.database import open_database
from flashsale.migration import migrate
from flashsale.urls import parse_database_url
from tests.support.postgres import PrivatePostgres
from tests.support.processes import PrivateServer, ServerNotInstalled, kept
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import wait_until

_MARKERS = {"postgres_server": "postgres", "rabbitmq_server": "rabbitmq"}
_THREADS_END_SECONDS = 2.0
_TEMPLATE = "flashsale_template"
_Server = TypeVar("_Server", bound=PrivateServer)


class QueueNames(NamedTuple):
    """Two queues no other test uses."""

    purchase_queue: str
    dead_letter_queue: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in _MARKERS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.fixture(autouse=True)
def no_thread_is_left_alive() -> Iterator[None]:
    """Fail a test that leaves a thread which would keep the process from ending."""
    before = set(threading.enumerate())
    yield

    def left() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t not in before and not t.daemon]

    try:
        wait_until(lambda: not left(), _THREADS_END_SECONDS, "the test's threads end")
    except TimeoutError:
        pytest.fail(f"threads left alive: {', '.join(thread.name for thread in left())}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PrivatePostgres]:
    yield from _running(PrivatePostgres)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[PrivateRabbitMQ]:
    yield from _running(PrivateRabbitMQ)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PrivatePostgres) -> str:
    """The name of a database that all migrations were applied to; nobody is connected to it."""
    if postgres_server.administer(f"SELECT 1 FROM pg_database WHERE datname = '{_TEMPLATE}'"):
        return _TEMPLATE
    postgres_server.create_database(_TEMPLATE)
    database = open_database(parse_database_url(postgres_server.url(_TEMPLATE)))
    try:
        migrate(database)
    finally:
        database.close_all()
    return _TEMPLATE


@pytest.fixture
def postgres_url(postgres_server: PrivatePostgres, migrated_template: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own, without rows."""
    yield from _database(postgres_server, migrated_template)


@pytest.fixture
def empty_postgres_url(postgres_server: PrivatePostgres) -> Iterator[str]:
    """The URL of a database of the test's own, without tables."""
    yield from _database(postgres_server, None)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: PrivateRabbitMQ) -> str:
    """The node's URL. Tests share its virtual host, so take queues from `queue_names`."""
    return rabbitmq_server.url()


@pytest.fixture
def queue_names(rabbitmq_server: PrivateRabbitMQ) -> Iterator[QueueNames]:
    """Names of queues that are deleted after the test, with what they hold and their exchange."""
    purchase_queue = f"purchase-{uuid.uuid4().hex}"
    names = QueueNames(purchase_queue, f"{purchase_queue}.XQ")
    yield names
    connection = rabbitmq_server.connect()
    channel = connection.channel()
    for name in names:
        channel.queue_delete(name)  # RabbitMQ takes what is missing for deleted
        channel.exchange_delete(name)
    connection.close()


def _running(make: Callable[[], _Server]) -> Iterator[_Server]:
    """A server for this run; where mutants are tested, one for all runs of the process."""
    try:
        if os.environ.get("TESTS_KEEP_SERVERS"):
            yield kept(make)
            return
        server = make()
    except ServerNotInstalled as missing:
        skip_or_fail(missing)
    with server:
        yield server


def _database(server: PrivatePostgres, template: str | None) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    server.create_database(name, template)
    yield server.url(name)
    server.drop_database(name)


def skip_or_fail(missing: ServerNotInstalled) -> None:
    """In CI a missing server is a mistake of the set-up, and no test may vanish for it."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(missing))
    pytest.skip(str(missing))
