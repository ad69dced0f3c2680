"""A cluster of three RabbitMQ nodes with quorum queues, of which nodes are lost."""

from __future__ import annotations

import time

from flashsale.brokers.topology import ensure_topology
from tests.torture.harness import Round
from tests.torture.nodes import ClusterStage, nodes_of
from tests.torture.proxy import Fault
from tests.torture.scenario import scenario

_QUORUM = {"PURCHASE_QUEUE_TYPE": "quorum"}
_HEARTBEAT = "?heartbeat=2"
_SECONDS = 15.0
# pika looks every heartbeat and five seconds whether anything came since its last look, and then a
# new connection to the same node has five seconds to open.
_SILENT_SECONDS = 2 * (2 + 5) + 5 + _SECONDS


@scenario("F38", "kill -9 the leader of the quorum queue, twice, under load", on=ClusterStage)
def leader_killed(round_: Round) -> None:
    cluster, queue = nodes_of(round_).nodes, round_.place.purchase_queue
    round_.start(masters=3, settings=_QUORUM)
    for _ in range(2):
        leader = cluster.leader(queue)
        round_.pause(0.3, 1.0)
        leader.kill()
        round_.sells_again(_SECONDS)
        leader.start()
        cluster.wait_for_all(queue)


@scenario("F38.follower", "kill -9 the workers' node, which leads neither queue", on=ClusterStage)
def follower_killed(round_: Round) -> None:
    cluster, place = nodes_of(round_).nodes, round_.place
    workers_node, other, _ = cluster.nodes
    with other.connect() as connection:
        ensure_topology(
            connection,
            purchase_queues=(place.purchase_queue,),
            dead_letter_queue=place.dead_letter_queue,
            queue_type="quorum",
        )
    round_.expect(cluster.leader(place.purchase_queue) is other, "another node leads")
    round_.start(settings=_QUORUM)
    round_.pause(0.3, 1.0)
    workers_node.kill()
    round_.sells_again(_SECONDS)
    workers_node.start()
    cluster.wait_for_all(place.purchase_queue)


@scenario("F38.silent", "the workers' node falls silent, for old and new", on=ClusterStage)
def silent_node(round_: Round) -> None:
    stage = nodes_of(round_)
    round_.start(settings=_QUORUM, broker_query=_HEARTBEAT)
    round_.pause(0.3, 1.0)
    stage.to_nodes[0].impose(Fault(drop_replies=True))
    round_.sells_again(_SILENT_SECONDS)
    round_.workers.restart()
    round_.sells_again(_SILENT_SECONDS)
    stage.to_nodes[0].heal()


@scenario("F38.minority", "two of three nodes are lost, and come back", on=ClusterStage)
def majority_lost(round_: Round) -> None:
    cluster, queue = nodes_of(round_).nodes, round_.place.purchase_queue
    round_.start(settings=_QUORUM)
    leader = cluster.leader(queue)
    other = next(node for node in cluster.nodes if node is not leader)
    for node in (leader, other):
        node.kill()
    time.sleep(5)
    cluster.start()
    round_.sells_again(_SECONDS)
    cluster.wait_for_all(queue)
