"""TLS to both servers: whom a client believes, and that the whole work is done through it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsale.brokers.connections import open_blocking
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.database import close_database, open_database, session
from flashsale.errors import BrokerUnavailable, SettingsError, SystemFault
from flashsale.urls import parse_database_url
from tests.acceptance.conftest import StartWorker
from tests.support.certificates import Certificates, make_certificates
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop

pytestmark = pytest.mark.acceptance

NAME = "127.0.0.1"
#: The same machine, and not what the certificates are issued for.
OTHER_NAME = "localhost"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("issued"), NAME)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that has issued nothing here."""
    return make_certificates(tmp_path_factory.mktemp("stranger"), NAME).authority


@pytest.fixture(scope="module")
def tls_port(rabbitmq_server: PrivateRabbitMQ, certificates: Certificates) -> Iterator[int]:
    """Of a node that speaks TLS there, and plain AMQP elsewhere for the test itself."""
    port = free_port()
    settings = {
        "listeners.ssl.1": f"{NAME}:{port}",
        "ssl_options.certfile": str(certificates.certificate),
        "ssl_options.keyfile": str(certificates.key),
        "ssl_options.cacertfile": str(certificates.authority),
    }
    with PrivateRabbitMQ(settings=settings):
        yield port


@pytest.fixture(scope="module")
def tls_postgres(
    postgres_server: PrivatePostgres, certificates: Certificates
) -> Iterator[PrivatePostgres]:
    """A server that lets the role of the worker in through TLS only."""
    with PrivatePostgres() as server:
        key = server.folder / "server.key"
        shutil.copy(certificates.key, key)
        key.chmod(0o600)
        if os.getuid() == 0:
            shutil.chown(key, "postgres", "postgres")
        certificate = server.folder / "server.pem"
        shutil.copy(certificates.certificate, certificate)
        certificate.chmod(0o644)
        hba = server.folder / "data" / "pg_hba.conf"
        hba.write_text(f"hostnossl all encrypted all reject\n{hba.read_text()}")
        connection = server.connect()
        cursor = connection.cursor()
        cursor.execute("CREATE ROLE encrypted SUPERUSER LOGIN")
        cursor.execute(f"ALTER SYSTEM SET ssl_cert_file = '{certificate}'")
        cursor.execute(f"ALTER SYSTEM SET ssl_key_file = '{key}'")
        cursor.execute("ALTER SYSTEM SET ssl = on")
        cursor.execute("SELECT pg_reload_conf()")
        connection.close()
        yield server


def amqps(port: int, authority: Path | None, host: str = NAME) -> str:
    query = f"?cacertfile={authority}" if authority else ""
    return f"amqps://guest:guest@{host}:{port}{query}"


def ask(url: str) -> None:
    database = open_database(parse_database_url(url))
    try:
        with session(database):
            database.execute_sql("SELECT 1")
    finally:
        close_database(database)


def test_the_whole_work_is_done_through_tls(
    tls_port: int,
    tls_postgres: PrivatePostgres,
    certificates: Certificates,
    start_worker: StartWorker,
) -> None:
    database_url = tls_postgres.url(user="encrypted")
    shop = Shop(database_url, amqps(tls_port, certificates.authority), "purchase", "purchase.XQ")
    shop.make_tables()
    shop.open_sale()
    environment = {
        "DATABASE_URL": f"{database_url}?sslmode=verify-full&sslrootcert={certificates.authority}"
    }

    worker = start_worker(shop, **environment)
    with ConfirmingPublisher([shop.broker_url], "flashsale test") as publisher:
        worker.wait_for_log("broker.connected", 15, lines=3)
        users = [f"buyer-{number:02}" for number in range(50)]
        publisher.publish(Outgoing("purchase", shop.event(user)) for user in users)
        publisher.publish([Outgoing("purchase", b"no event")])
    shop.wait_for_orders(len(users), 15)
    worker.wait_for_log("events.dead_lettered", 5)
    worker.terminate()

    assert worker.wait(8) == 0
    assert shop.orders() == users


class TestRabbitMQ:
    def test_another_authority_is_not_believed(self, tls_port: int, stranger: Path) -> None:
        with pytest.raises(BrokerUnavailable, match="certificate is not trusted"):
            open_blocking([amqps(tls_port, stranger)], "flashsale test")

    def test_without_cacertfile_the_system_s_authorities_count(self, tls_port: int) -> None:
        with pytest.raises(BrokerUnavailable, match="certificate is not trusted"):
            open_blocking([amqps(tls_port, None)], "flashsale test")

    def test_a_certificate_for_another_host_is_not_believed(
        self, tls_port: int, certificates: Certificates
    ) -> None:
        with pytest.raises(BrokerUnavailable, match="not trusted for this host name"):
            open_blocking([amqps(tls_port, certificates.authority, OTHER_NAME)], "flashsale test")

    def test_the_publisher_believes_no_other_either(self, tls_port: int, stranger: Path) -> None:
        """It connects in another way than the consumer."""
        with (
            ConfirmingPublisher([amqps(tls_port, stranger)], "flashsale test") as publisher,
            pytest.raises(BrokerUnavailable, match="certificate is not trusted"),
        ):
            publisher.publish([Outgoing("purchase", b"event")])

    def test_plain_text_and_tls_do_not_meet(
        self, tls_port: int, certificates: Certificates, rabbitmq_server: PrivateRabbitMQ
    ) -> None:
        with pytest.raises(BrokerUnavailable):
            open_blocking([f"amqp://guest:guest@{NAME}:{tls_port}"], "flashsale test")
        with pytest.raises(BrokerUnavailable, match="does not speak TLS"):
            open_blocking([amqps(rabbitmq_server.port, certificates.authority)], "flashsale test")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("cacertfile=/missing/canary", "cacertfile of number 1: it is not readable"),
        (f"cacertfile={__file__}", "cacertfile of number 1: it holds no such thing"),
        ("certfile=/missing/canary", "certfile or keyfile of number 1: it is not readable"),
        ("keyfile=/missing/canary", "certfile or keyfile of number 1: it is not readable"),
        ("verify=verify_none", "check verify"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(query: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        open_blocking([f"amqps://u:canary@{NAME}:1?{query}"], "flashsale test")
    assert "canary" not in str(caught.value)


def test_files_for_tls_are_refused_without_it(certificates: Certificates) -> None:
    url = f"amqp://guest:guest@{NAME}?cacertfile={certificates.authority}"
    with pytest.raises(SettingsError, match="without amqps"):
        open_blocking([url], "flashsale test")


class TestPostgreSQL:
    def test_another_authority_is_not_believed(
        self, tls_postgres: PrivatePostgres, stranger: Path
    ) -> None:
        with pytest.raises(SystemFault):
            ask(f"{tls_postgres.url()}?sslmode=verify-full&sslrootcert={stranger}")

    def test_a_certificate_for_another_host_is_not_believed(
        self, tls_postgres: PrivatePostgres, certificates: Certificates
    ) -> None:
        options = f"?sslmode=verify-full&sslrootcert={certificates.authority}"
        ask(tls_postgres.url() + options)
        with pytest.raises(SystemFault):
            ask(tls_postgres.url().replace(NAME, OTHER_NAME) + options)

    def test_a_server_without_tls_is_refused(
        self, postgres_server: PrivatePostgres, certificates: Certificates
    ) -> None:
        ask(postgres_server.url())
        options = f"?sslmode=verify-full&sslrootcert={certificates.authority}"
        with pytest.raises(SystemFault):
            ask(postgres_server.url() + options)

    def test_plain_text_is_refused_where_the_server_demands_tls(
        self, tls_postgres: PrivatePostgres
    ) -> None:
        ask(f"{tls_postgres.url(user='encrypted')}?sslmode=require")
        with pytest.raises(SystemFault):
            ask(f"{tls_postgres.url(user='encrypted')}?sslmode=disable")
