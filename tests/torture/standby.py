"""A stage whose PostgreSQL has a synchronous standby that can take its place."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

from tests.support.postgres import PrivatePostgres, PrivateStandby
from tests.torture.harness import Round
from tests.torture.proxy import Proxy
from tests.torture.stage import CANARY_PASSWORD, MAX_CONNECTIONS, WORKER, Stage


class StandbyStage(Stage):
    """The RabbitMQ of another stage, and two servers of PostgreSQL, each behind a proxy.

    ``postgres`` is the one that takes writes: the first of the two, until :meth:`promote`.
    """

    def __init__(self, shared: Stage) -> None:
        self.rabbitmq, self.to_rabbitmq = shared.rabbitmq, shared.to_rabbitmq
        self.postgres = PrivatePostgres({"max_connections": str(MAX_CONNECTIONS)})
        self.standby = PrivateStandby(self.postgres)

    def __enter__(self) -> StandbyStage:
        with ExitStack() as resources:
            resources.enter_context(self.postgres)
            self.make_worker_of_postgres()
            resources.enter_context(self.standby)
            self.postgres.replicate_to(self.standby)
            self.to_postgres = resources.enter_context(Proxy(self.postgres.port))
            self.to_standby = resources.enter_context(Proxy(self.standby.port))
            self._resources = resources.pop_all()
        return self

    def worker_database_url(self, database: str) -> str:
        ports = (self.to_postgres.port, self.to_standby.port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql://{WORKER}:{CANARY_PASSWORD}@{hosts}/{database}"

    def promote(self) -> None:
        """Let the standby take the primary's place, dead or alive."""
        self.standby.promote()
        self.postgres = self.standby


def standby_of(round_: Round) -> StandbyStage:
    """The stage of a round that is played on one with a standby."""
    return cast(StandbyStage, round_.stage)
