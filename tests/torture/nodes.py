"""A stage whose RabbitMQ is a cluster of three nodes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

from tests.torture.harness import Round
from tests.torture.proxy import Proxy
from tests.torture.stage import CANARY_PASSWORD, WORKER, Stage


class ClusterStage(Stage):
    """The PostgreSQL of another stage, and its cluster, each node behind a proxy."""

    def __init__(self, shared: Stage) -> None:
        self.postgres, self.to_postgres = shared.postgres, shared.to_postgres
        self.rabbitmq = self.nodes = shared.cluster()

    def __enter__(self) -> ClusterStage:
        with ExitStack() as resources:
            nodes = self.nodes.nodes
            self.to_nodes = [resources.enter_context(Proxy(node.port)) for node in nodes]
            self.to_rabbitmq = self.to_nodes[0]
            self._resources = resources.pop_all()
        return self

    @property
    def worker_broker_url(self) -> str:
        """Of all nodes; a worker connects to the first of them that answers."""
        credentials = f"{WORKER}:{CANARY_PASSWORD}"
        return ";".join(f"amqp://{credentials}@127.0.0.1:{to.port}" for to in self.to_nodes)


def nodes_of(round_: Round) -> ClusterStage:
    """The stage of a round that is played on one with a cluster."""
    return cast(ClusterStage, round_.stage)
