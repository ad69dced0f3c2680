"""Private RabbitMQ nodes that are one cluster, on this machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pika
from pika.exceptions import AMQPError

from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import wait_until

_JOIN_SECONDS = 60


class PrivateCluster:
    """Nodes that share users, queues and policies, gone with the ``with`` block or the process.

    Where it can be any node that is meant, the first of those that run is.
    """

    def __init__(self, size: int = 3) -> None:
        first = PrivateRabbitMQ()
        self.nodes = [first, *(PrivateRabbitMQ(beside=first) for _ in range(size - 1))]
        peers = {
            f"cluster_formation.classic_config.nodes.{number}": node.name
            for number, node in enumerate(self.nodes, 1)
        }
        for node in self.nodes:
            node.configure({"cluster_formation.peer_discovery_backend": "classic_config", **peers})

    def __enter__(self) -> PrivateCluster:
        try:
            first, *others = self.nodes
            first.start()  # its epmd is that of all
            with ThreadPoolExecutor() as threads:
                list(threads.map(PrivateRabbitMQ.start, others))
            wait_until(self._is_whole, _JOIN_SECONDS, "the nodes are one cluster")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.close()

    @property
    def running(self) -> list[PrivateRabbitMQ]:
        """The nodes that are not stopped or killed, in order."""
        return [node for node in self.nodes if node.is_running]

    @property
    def pid(self) -> int:
        """Of any node; RuntimeError while one is down."""
        return min(node.pid for node in self.nodes)

    def start(self) -> None:
        """Start those that are down."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(PrivateRabbitMQ.start, set(self.nodes) - set(self.running)))

    def url(self) -> str:
        """Of all nodes, in order, as RABBITMQ_URL has them."""
        return ";".join(node.url() for node in self.nodes)

    def connect(self) -> pika.BlockingConnection:
        """A connection of the user guest to any node; the caller closes it."""
        return self.running[0].connect()

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` prints at any node; see :meth:`PrivateRabbitMQ.ctl`."""
        return self.running[0].ctl(*arguments)

    def leader(self, queue: str) -> PrivateRabbitMQ:
        """The node that leads a quorum queue."""
        names = dict(
            line.split("\t")
            for line in self.ctl("list_queues", "--no-table-headers", "name", "leader").splitlines()
            if "\t" in line
        )
        (leader,) = [node for node in self.nodes if node.name == names[queue]]
        return leader

    def wait_for_all(self, queue: str) -> None:
        """Return when every node takes part in a quorum queue again."""

        def all_online() -> bool:
            listed = self.ctl("list_queues", "--no-table-headers", "name", "online")
            online = next((line for line in listed.splitlines() if queue in line), "")
            return all(node.name in online for node in self.nodes)

        wait_until(all_online, _JOIN_SECONDS, f"all nodes take part in {queue}")

    def _is_whole(self) -> bool:
        try:
            listed = self.nodes[0].ctl("eval", "rabbit_nodes:all_running().")
        except AMQPError:
            return False
        return all(node.name in listed for node in self.nodes)
