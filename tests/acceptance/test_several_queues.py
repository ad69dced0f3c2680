"""One worker drains several queues: each event one order, whatever becomes of one of the queues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.spreading import queue_for
from tests.acceptance.conftest import RECONCILE_SOON, StartWorker, finish
from tests.conftest import QueueNames
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop, with_repeats
from tests.support.waiting import wait_until

pytestmark = pytest.mark.acceptance

NO_SALE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def shop(
    postgres_url: str, rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> Iterator[Shop]:
    """With three purchase queues, and the dead-letter queue of the first."""
    queues = [queue_names.purchase_queue, *(f"{queue_names.purchase_queue}-{n}" for n in (1, 2))]
    url = rabbitmq_server.url()
    shop = Shop(postgres_url, url, ",".join(queues), queue_names.dead_letter_queue)
    shop.open_sale()
    yield shop
    with rabbitmq_server.connect() as connection:
        for queue in queues[1:]:
            connection.channel().queue_delete(queue)


def flashsale(shop: Shop, state: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and stdout of a command in the shop's environment."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "FLASHSALE_STATE_FOLDER": str(state),
        **shop.environment(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_all_queues_are_drained_to_one_order_and_one_audit_row_each(
    shop: Shop, start_worker: StartWorker
) -> None:
    """Also where a shopper's repeat is in another queue than the first."""
    users = [f"buyer-{number}" for number in range(6_000)]
    shop.buy(with_repeats(users))
    assert all(shop.ready(queue) > 1_500 for queue in shop.purchase_queues)
    astray = [(shop.purchase_queues[number % 3], user) for number, user in enumerate(users[::7])]
    with ConfirmingPublisher([shop.broker_url], "flashsale test") as publisher:
        publisher.publish(Outgoing(queue, shop.event(user)) for queue, user in astray)

    worker = start_worker(shop)
    shop.wait_for_orders(len(users), 30)
    worker.terminate()

    assert worker.wait(8) == 0
    shop.assert_settled(users)
    stopped = worker.logged("worker.stopped")
    assert len(stopped) == 3
    assert sum(line["settled"] for line in stopped) == 6_000 + 316 + len(astray)


def test_a_kill_in_the_middle_loses_nothing_of_any_queue(
    shop: Shop, start_worker: StartWorker
) -> None:
    users = [f"buyer-{number}" for number in range(3_000)]
    shop.slow_down(0.05)
    shop.buy(users)
    worker = start_worker(shop, FLASHSALE_BATCH_SIZE="50")
    shop.wait_for_orders(300, 15)
    for pid in worker.consumer_pids():
        os.kill(pid, signal.SIGKILL)
    worker.kill()
    assert shop.order_count() < len(users)

    finish(shop, start_worker(shop, **RECONCILE_SOON), users)


def test_while_one_queue_is_missing_the_others_are_drained_and_it_is_told(
    shop: Shop, start_worker: StartWorker, tmp_path: Path, rabbitmq_server: PrivateRabbitMQ
) -> None:
    _, gone, _ = shop.purchase_queues
    worker = start_worker(shop, FLASHSALE_STATE_FOLDER=str(tmp_path), FLASHSALE_LOG_FORMAT="json")
    wait_until(lambda: flashsale(shop, tmp_path, "health", "--ready")[0] == 0, 30, "it is ready")

    with rabbitmq_server.connect() as connection:
        connection.channel().queue_delete(gone)
    lost = worker.wait_for_log("broker.queue_lost", 10, lines=3)
    assert {line["queue"] for line in lost} == {gone}
    wait_until(
        lambda: flashsale(shop, tmp_path, "health", "--ready")[0] == 1, 10, "it is not ready"
    )
    assert f"does not consume {gone}:" in flashsale(shop, tmp_path, "health", "--ready")[1]
    assert flashsale(shop, tmp_path, "health", "--live")[0] == 0

    here = [user for user in map("buyer-{}".format, range(300)) if home(shop, user) != gone]
    with ConfirmingPublisher([shop.broker_url], "flashsale test") as publisher:
        publisher.publish(Outgoing(home(shop, user), shop.event(user)) for user in here)
    shop.wait_for_orders(len(here), 15)
    code, out = flashsale(shop, tmp_path, "status", "--json")
    assert code == 3
    queues = json.loads(out)["broker"]["purchases"]["queues"]
    assert queues == {
        queue: None if queue == gone else {"ready": 0, "consumers": 3}
        for queue in shop.purchase_queues
    }

    shop.buy(["late"])  # which declares what is missing
    worker.wait_for_log("broker.queue_found", 10, lines=3)
    wait_until(lambda: flashsale(shop, tmp_path, "health", "--ready")[0] == 0, 10, "it is ready")
    finish(shop, worker, [*here, "late"])


def test_dead_letters_are_replayed_to_the_queues_they_came_from(
    shop: Shop, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Also where the spread would send them elsewhere."""
    origins = {f"buyer-{number}": shop.purchase_queues[number % 3] for number in range(30)}
    events = {shop.event(user, NO_SALE): queue for user, queue in origins.items()}
    shop.publish([])  # declares the queues
    with ConfirmingPublisher([shop.broker_url], "flashsale test") as publisher:
        publisher.publish(Outgoing(queue, body) for body, queue in events.items())
        worker = start_worker(shop)
        wait_until(lambda: shop.ready(shop.dead_letter_queue) == 30, 20, "all are set aside")
        worker.terminate()
        assert worker.wait(8) == 0
        # One of a worker that wrote no headers, as the one before this one: where it is spread to.
        old = shop.event("old")
        publisher.publish([Outgoing(shop.dead_letter_queue, old)])

    code, out = flashsale(shop, tmp_path, "dead-letters", "retry", "--expect", "31", "--json")

    assert (code, json.loads(out)["done"]) == (0, 31)
    for queue in shop.purchase_queues:
        there = {body for body, _ in shop.take_all(queue)}
        expected = {body for body, origin in events.items() if origin == queue}
        assert there == expected | ({old} if home(shop, "old") == queue else set())


def home(shop: Shop, user: str) -> str:
    return queue_for(shop.event(user), shop.purchase_queues)
