"""The worker under the very grants of docs/security.md, and what these refuse it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pika
import psycopg2
import pytest
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from psycopg2.errors import InsufficientPrivilege

from flashsale.cli import cli
from tests.acceptance.conftest import RECONCILE_SOON, StartWorker
from tests.support.api import declare_as_the_api_does
from tests.support.documents import blocks
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until

pytestmark = pytest.mark.acceptance

QUEUES = ("purchase", "purchase.XQ")
PASSWORDS = {"ADMIN_PASSWORD": "a", "WORKER_PASSWORD": "w", "API_PASSWORD": "p"}


class Servers(NamedTuple):
    """Both, with the users that docs/security.md makes, and nothing else yet."""

    postgres: PrivatePostgres
    rabbitmq: PrivateRabbitMQ

    def amqp(self, user: str) -> str:
        password = PASSWORDS[f"{user.upper()}_PASSWORD"]
        return f"amqp://flashsale_{user}:{password}@127.0.0.1:{self.rabbitmq.port}/flashsale"

    def sql(self, role: str) -> str:
        return self.postgres.url(user=f"flashsale_{role}")

    def execute(self, statements: str, role: str = "") -> None:
        connection = psycopg2.connect(self.sql(role) if role else self.postgres.url())
        try:
            connection.autocommit = True
            connection.cursor().execute(statements)
        finally:
            connection.close()

    def shop(self, amqp_user: str) -> Shop:
        """The shop as one who may everything in the database sees it."""
        return Shop(self.postgres.url(), self.amqp(amqp_user), *QUEUES)


def made_with(command: str, **env: str) -> None:
    result = CliRunner().invoke(cli, [command], env=env, standalone_mode=False)
    assert result.exception is None, result.output
    assert result.return_value == 0


@pytest.fixture(scope="module")
def servers(
    rabbitmq_server: PrivateRabbitMQ, postgres_server: PrivatePostgres
) -> Iterator[Servers]:
    """Roles belong to a whole server, so PostgreSQL is one of this module's own."""
    with PrivatePostgres() as postgres:
        servers = Servers(postgres, rabbitmq_server)
        (commands,) = blocks("docs/security.md", "sh", "### RabbitMQ")
        for name, password in PASSWORDS.items():
            commands = commands.replace(f"${name}", password)
        for line in commands.splitlines():
            if arguments := shlex.split(line, comments=True):
                assert arguments[0] == "rabbitmqctl"
                rabbitmq_server.ctl(*arguments[1:])
        roles, grants = blocks("docs/security.md", "sql", "### PostgreSQL")
        roles = roles.replace(":'owner_password'", "'o'").replace(":'worker_password'", "'w'")
        servers.execute(roles)
        made_with("migrate", DATABASE_URL=servers.sql("owner"))
        servers.execute(grants, "owner")
        yield servers
    rabbitmq_server.ctl("delete_vhost", "flashsale")


@pytest.fixture(scope="module")
def topology(servers: Servers) -> None:
    made_with("topology", RABBITMQ_URL=servers.amqp("admin"))


@pytest.fixture
def worker_environment(servers: Servers) -> dict[str, str]:
    return {
        "DATABASE_URL": servers.sql("worker"),
        "RABBITMQ_URL": servers.amqp("worker"),
        "FLASHSALE_PROBE_MAX_SECONDS": "0.2",
        "FLASHSALE_BREAKER_HOLD_SECONDS": "0.5",
        **RECONCILE_SOON,
    }


def test_the_whole_work_is_done_under_them(
    servers: Servers, start_worker: StartWorker, worker_environment: dict[str, str]
) -> None:
    """Waiting for its queues, orders, audit trail, dead letters, reconciler, breaker."""
    shop = servers.shop("admin")
    shop.open_sale()
    with shop.channel() as channel:
        for name in QUEUES:
            channel.queue_delete(name)
            channel.exchange_delete(name)
    worker = start_worker(shop, **worker_environment)
    (waiting, *_) = worker.wait_for_log("broker.unreachable", 15)
    assert "run `flashsale topology`" in waiting["cause"]

    made_with("topology", RABBITMQ_URL=servers.amqp("admin"))
    users = [f"buyer-{number}" for number in range(200)]
    bad = shop.event("nobody", sale_id="no-sale")
    api = servers.shop("api")
    with api.channel() as channel:
        declare_as_the_api_does(channel, *QUEUES)
        for body in [bad, *map(shop.event, users)]:
            channel.basic_publish("", "purchase", body)
    shop.wait_for_orders(len(users), 20)
    wait_until(lambda: len(shop.confirmations()) == len(users), 5, "the audit trail is flushed")
    wait_until(lambda: shop.ready("purchase.XQ") == 1, 5, "the dead letter is written")

    shop.query("DELETE FROM order_audit_trail WHERE user_id = 'buyer-7'")
    shop.age_orders()
    wait_until(lambda: len(shop.confirmations()) == len(users), 20, "the reconciler fills the gap")

    shop.query("ALTER TABLE orders RENAME TO away")
    with api.channel() as channel:
        channel.basic_publish("", "purchase", shop.event("late"))
    worker.wait_for_log("work.suspended", 15)
    shop.query("ALTER TABLE away RENAME TO orders")
    shop.wait_for_orders(len(users) + 1, 10)
    worker.wait_for_log("work.resumed", 5)

    wait_until(lambda: "late" in shop.confirmations(), 5, "the last audit row is written")
    worker.terminate()
    assert worker.wait(8) == 0
    assert [body for body, _ in shop.take_all("purchase.XQ")] == [bad]
    shop.assert_settled([*users, "late"])
    for event in ("topology.default_exchange", "dead_letters.unwritten", "audit.flush_failed"):
        assert worker.logged(event) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orders SET status = 'CANCELLED'",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "DROP TABLE orders",
        "ALTER TABLE orders ADD COLUMN x int",
        "SELECT * FROM orders FOR UPDATE",
        "INSERT INTO orders (status) VALUES ('FREE')",
        "UPDATE order_audit_trail SET user_id = 'x'",
        "DELETE FROM order_audit_trail",
        "SELECT metadata FROM order_audit_trail",
        "SELECT name FROM sales",
        "DELETE FROM sales",
        "INSERT INTO sales (id) VALUES (gen_random_uuid())",
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "SELECT * FROM migratehistory",
    ],
)
def test_postgresql_refuses_all_else(servers: Servers, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        servers.execute(statement, "worker")


@pytest.mark.usefixtures("topology")
@pytest.mark.parametrize(
    "request_",
    [
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.queue_delete("purchase"),
        lambda channel: channel.queue_purge("purchase.XQ"),
        lambda channel: channel.basic_get("purchase.XQ"),
        lambda channel: channel.basic_consume("other", print),
        lambda channel: channel.basic_publish("", "purchase", b"forged"),
        lambda channel: channel.basic_publish("", "purchase.XQ", b"forged"),
        lambda channel: channel.basic_publish("amq.topic", "purchase", b"forged"),
        lambda channel: channel.exchange_declare("mine"),
        lambda channel: channel.exchange_delete("purchase.XQ"),
        lambda channel: channel.queue_bind("purchase", "purchase.XQ"),
        lambda channel: channel.queue_unbind("purchase.XQ", "purchase.XQ"),
    ],
)
def test_rabbitmq_refuses_all_else(
    servers: Servers, request_: Callable[[BlockingChannel], object]
) -> None:
    with pika.BlockingConnection(pika.URLParameters(servers.amqp("worker"))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            request_(channel)


@pytest.mark.usefixtures("topology")
def test_whoever_is_on_call_sees_as_much_as_the_worker_may(
    worker_environment: dict[str, str],
) -> None:
    """What this user is not told is said to be unknown, and nothing else is said against it."""
    seen = CliRunner().invoke(
        cli, ["status", "--json"], env=worker_environment, standalone_mode=False
    )
    examined = CliRunner().invoke(
        cli, ["doctor", "--json"], env=worker_environment, standalone_mode=False
    )

    assert (seen.return_value, examined.return_value) == (0, 0), seen.output + examined.output
    assert json.loads(seen.stdout)["broker"]["purchases"]["queue"] == "purchase"
    findings = json.loads(examined.stdout)["findings"]
    assert {f["check"] for f in findings if f["level"] != "ok"} == {
        "dead-letter-queue",
        "purchase-queue",
        "policies",
        "migrations",
    }
