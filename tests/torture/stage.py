"""The servers, and the network to them: kept from round to round, private to this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from flashsale.database import close_database, open_database
from flashsale.migration import migrate
from flashsale.urls import parse_database_url
from tests.support.documents import blocks
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.rabbitmq_cluster import PrivateCluster
from tests.torture.proxy import Proxy

#: The worker's user on both servers.
WORKER = "torture_worker"
#: Its password: it must never be seen in a log.
CANARY_PASSWORD = "canary-password"  # noqa: S105  # it opens private servers only
#: A user of PostgreSQL who is neither the worker nor the superuser.
NEIGHBOUR = "torture_neighbour"
#: PostgreSQL's limit, low enough for a test to use up.
MAX_CONNECTIONS = 40

_TEMPLATE = "torture_template"


class Place(NamedTuple):
    """A round's own database and queues."""

    database: str
    purchase_queue: str
    dead_letter_queue: str
    sale_ids: list[str]

    @property
    def all_queues(self) -> list[str]:
        """Names for several purchase queues, the usual one first."""
        return [self.purchase_queue, *(f"{self.purchase_queue}-{number}" for number in (1, 2))]


class Stage:
    """PostgreSQL and RabbitMQ, each behind a proxy, and a worker's user on both."""

    def __init__(self) -> None:
        self.postgres = PrivatePostgres({"max_connections": str(MAX_CONNECTIONS)})
        self.rabbitmq: PrivateRabbitMQ | PrivateCluster = PrivateRabbitMQ()
        self._cluster: PrivateCluster | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Stage:
        with ExitStack() as resources:
            resources.enter_context(self.postgres)
            resources.enter_context(self.rabbitmq)
            self.to_postgres = resources.enter_context(Proxy(self.postgres.port))
            self.to_rabbitmq = resources.enter_context(Proxy(self.rabbitmq.port))
            self.make_worker_of_postgres()
            _make_worker_of_rabbitmq(self.rabbitmq)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def cluster(self) -> PrivateCluster:
        """Three RabbitMQ nodes beside the one of all others; they start when first asked for."""
        if self._cluster is None:
            self._cluster = self._resources.enter_context(PrivateCluster())
            _make_worker_of_rabbitmq(self._cluster)
        return self._cluster

    def restore(self) -> None:
        """Start what an interrupted round has left stopped, and heal the network."""
        for server in (self.postgres, self.rabbitmq):
            try:
                _ = server.pid
            except RuntimeError:
                server.start()
        for proxy in (self.to_postgres, self.to_rabbitmq):
            proxy.heal()

    @property
    def worker_broker_url(self) -> str:
        return f"amqp://{WORKER}:{CANARY_PASSWORD}@127.0.0.1:{self.to_rabbitmq.port}"

    def worker_database_url(self, database: str) -> str:
        address = f"127.0.0.1:{self.to_postgres.port}"
        return f"postgresql://{WORKER}:{CANARY_PASSWORD}@{address}/{database}"

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A migrated database with three sales, and names for two queues; gone afterwards."""
        name = f"torture_{uuid.uuid4().hex}"
        self.postgres.create_database(name, _TEMPLATE)
        place = Place(name, name, f"{name}.XQ", [str(uuid.uuid4()) for _ in range(3)])
        connection = self.postgres.connect(name)
        with connection.cursor() as cursor:
            for sale_id in place.sale_ids:
                cursor.execute(
                    "INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)"
                    " VALUES (%s, 'torture', 1, now(), now(), now())",
                    (sale_id,),
                )
        connection.close()
        try:
            yield place
        finally:
            self.postgres.drop_database(name)
            with self.rabbitmq.connect() as broker:
                for queue in (*place.all_queues, place.dead_letter_queue):
                    broker.channel().queue_delete(queue)
                broker.channel().exchange_delete(place.dead_letter_queue)

    def query(self, database: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement as superuser, on a connection of its own, and return its rows."""
        connection = self.postgres.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def disconnect_workers(self) -> None:
        """Let PostgreSQL end every connection of a worker."""
        self.query(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            WORKER,
        )

    def make_worker_of_postgres(self) -> None:
        self.query("postgres", f"CREATE ROLE {WORKER} LOGIN PASSWORD '{CANARY_PASSWORD}'")
        self.query("postgres", f"CREATE ROLE {NEIGHBOUR} LOGIN")
        hba = self.postgres.folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all {WORKER} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        self.query("postgres", "SELECT pg_reload_conf()")
        self.postgres.create_database(_TEMPLATE)
        database = open_database(parse_database_url(self.postgres.url(_TEMPLATE)))
        try:
            migrate(database)
        finally:
            close_database(database)
        _, grants = blocks("docs/security.md", "sql", "### PostgreSQL")
        self.query(_TEMPLATE, grants.replace("flashsale_worker", WORKER))


def _make_worker_of_rabbitmq(rabbitmq: PrivateRabbitMQ | PrivateCluster) -> None:
    rabbitmq.ctl("add_user", WORKER, CANARY_PASSWORD)
    rabbitmq.ctl("set_permissions", WORKER, ".*", ".*", ".*")
