"""RabbitMQ that crashes, cuts, blocks, or has other queues than expected."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from tests.torture.harness import Round
from tests.torture.proxy import Fault
from tests.torture.scenario import scenario
from tests.torture.stage import WORKER

_HEARTBEAT = "?heartbeat=2"
_MORE_BAD = 0.1


@scenario("F23", "RabbitMQ closes the workers' connections, twice")
def closed_connections(round_: Round) -> None:
    round_.start()
    for _ in range(2):
        round_.pause(0.1, 0.8)
        round_.stage.rabbitmq.ctl("close_all_user_connections", WORKER, "torture")
    round_.healed()


@scenario("F23.cut", "connections to RabbitMQ are reset at random")
def cut_connections(round_: Round) -> None:
    round_.events.bad_share = _MORE_BAD
    round_.start()
    for _ in range(6):
        round_.pause(0.1, 0.8)
        round_.stage.to_rabbitmq.cut_some(round_.choice)
    round_.healed()


@scenario("F23.hole", "RabbitMQ accepts data and never answers")
def black_hole(round_: Round) -> None:
    round_.start(broker_query=_HEARTBEAT)
    round_.pause(0.3, 1.0)
    round_.stage.to_rabbitmq.impose(
        round_.choice.choice([Fault(drop_replies=True), Fault(drop_requests=True)])
    )
    round_.pause(3.0, 6.0)
    round_.stage.to_rabbitmq.heal()
    round_.healed()


@scenario("F23.refused", "RabbitMQ cannot be reached for a while")
def refused(round_: Round) -> None:
    round_.start()
    round_.stage.to_rabbitmq.impose(Fault(refuse=True))
    round_.stage.to_rabbitmq.cut()
    round_.pause(1.0, 4.0)
    round_.stage.to_rabbitmq.heal()
    round_.healed()


@scenario("F24", "RabbitMQ's node is killed and starts again")
def crash(round_: Round) -> None:
    round_.start()
    round_.pause(0.3, 1.0)
    round_.stage.rabbitmq.kill()
    round_.stage.rabbitmq.start()
    round_.healed()


@scenario("F25", "RabbitMQ's memory alarm blocks publishers, and so dead letters")
def memory_alarm(round_: Round) -> None:
    workers = round_.start_workers()
    workers.stop()
    round_.events.bad_share = _MORE_BAD
    round_.load.publish(round_.events.take(600))
    good = {event.key for event in round_.load.history.confirmed if event.key}
    watermark = "set_vm_memory_high_watermark"
    round_.stage.rabbitmq.ctl(watermark, "absolute", "1")
    try:
        round_.start_workers()
        round_.expect_within(
            lambda: (round_.orders() or 0) >= len(good), 15, "orders are written in an alarm"
        )
        letters = round_.ready(round_.place.dead_letter_queue)
        round_.expect(letters == 0, f"{letters} dead letters passed a blocked RabbitMQ")
    finally:
        round_.stage.rabbitmq.ctl(watermark, "0.4")
    round_.load.start()
    round_.healed()


@scenario("F26", "the purchase queue is deleted, empty, under its consumers")
def deleted_queue(round_: Round) -> None:
    round_.start_workers()
    round_.load.publish(round_.events.take(200))
    round_.expect_within(round_.is_quiet, 15, "the queue drains")
    with round_.stage.rabbitmq.connect() as connection:
        connection.channel().queue_delete(round_.place.purchase_queue)
    time.sleep(4)
    round_.expect(round_.ready() is None, "a worker has made a new queue, quietly")
    round_.expect(
        round_.logged("broker.connection_lost") or round_.logged("broker.unreachable"),
        "the missing queue was not reported",
    )
    round_.declare(round_.place.purchase_queue, _api_arguments(round_))
    round_.load.start()
    round_.healed()


@scenario("F27", "the purchase queue has other arguments than the worker's")
def foreign_queue(round_: Round) -> None:
    round_.declare(round_.place.purchase_queue, {"x-max-priority": 3})
    round_.start()
    round_.expect(round_.logged("topology.foreign"), "the other arguments were not reported")


@scenario("F28", "the dead-letter queue is deleted")
def no_dead_letter_queue(round_: Round) -> None:
    round_.events.bad_share = 0.0
    round_.start()
    with round_.stage.rabbitmq.connect() as connection:
        connection.channel().queue_delete(round_.place.dead_letter_queue)
    round_.load.publish([round_.events.bad() for _ in range(20)])
    round_.pause(2.0, 4.0)
    round_.expect(round_.logged("dead_letters.unwritten"), "the missing queue was not reported")
    round_.declare(round_.place.dead_letter_queue, {})
    round_.healed()


@scenario("F28.full", "the dead-letter queue is full and rejects")
def full_dead_letter_queue(round_: Round) -> None:
    letters = round_.place.dead_letter_queue
    round_.declare(letters, {"x-max-length": 1, "x-overflow": "reject-publish"})
    round_.events.bad_share = 0.0
    round_.start()
    round_.load.publish([round_.events.bad() for _ in range(20)])
    round_.pause(2.0, 4.0)
    round_.expect(round_.logged("dead_letters.unwritten"), "the full queue was not reported")
    round_.take_dead_letters()
    with round_.stage.rabbitmq.connect() as connection:
        connection.channel().queue_delete(letters, if_empty=True)
    round_.declare(letters, {})
    round_.healed()


@scenario("F29", "RabbitMQ's limit of connections is reached")
def connection_limit(round_: Round) -> None:
    round_.start()
    round_.stage.rabbitmq.ctl("set_user_limits", WORKER, '{"max-connections": 0}')
    try:
        round_.stage.to_rabbitmq.cut()
        round_.pause(1.0, 3.0)
    finally:
        round_.stage.rabbitmq.ctl("clear_user_limits", WORKER, "max-connections")
    round_.healed()


@scenario("F29.files", "workers have used up their file descriptors, and lose all connections")
def file_descriptors(round_: Round) -> None:
    round_.start()
    workers = round_.workers.worker_pids()
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers}
    for pid, (_, hard) in limits.items():
        lowest_free = len(list(Path(f"/proc/{pid}/fd").iterdir())) // 2
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, hard))
    round_.stage.to_rabbitmq.cut()
    round_.stage.to_postgres.cut()
    round_.pause(1.0, 3.0)
    for pid, before in limits.items():
        if Path(f"/proc/{pid}").exists():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    round_.healed()


@scenario("F37", "three queues: one is deleted for a while, and a worker is killed meanwhile")
def several_queues(round_: Round) -> None:
    round_.queues += round_.place.all_queues[1:]
    round_.events.bad_share = _MORE_BAD
    round_.start_workers(masters=2)
    round_.load.publish(round_.events.take(300))
    round_.expect_within(round_.is_quiet, 15, "the queues drain")
    gone = round_.choice.choice(round_.queues)
    with round_.stage.rabbitmq.connect() as connection:
        connection.channel().queue_delete(gone)
    round_.expect_within(lambda: round_.logged("broker.queue_lost"), 5, "the loss is reported")
    round_.queues.remove(gone)
    round_.load.start()
    round_.healed()  # the others go on
    round_.pause(0.2, 1.0)
    round_.workers.kill([round_.choice.choice(round_.workers.worker_pids())])
    round_.pause(0.2, 1.0)
    round_.declare(gone, _api_arguments(round_))
    round_.queues.append(gone)
    round_.healed()
    round_.expect_within(
        lambda: round_.consumers() >= round_.workers.size, 15, "all workers consume all queues"
    )


def _api_arguments(round_: Round) -> dict[str, object]:
    """What the API declares the purchase queue with."""
    return {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": round_.place.dead_letter_queue,
    }
