"""Bad events among good ones: each is a dead letter with its reason, and delays nobody."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.acceptance.conftest import StartWorker
from tests.conftest import QueueNames
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.stores import open_store
from tests.support.waiting import wait_until

pytestmark = pytest.mark.acceptance

CANARY = "canary"


@pytest.fixture
def canary_shop(
    postgres_url: str, rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> Shop:
    """A shop whose passwords and shoppers contain the canary."""
    user, password = f"worker-{uuid.uuid4().hex}", f"{CANARY}-broker"
    rabbitmq_server.ctl("add_user", user, password)
    rabbitmq_server.ctl("set_permissions", user, ".*", ".*", ".*")
    broker_url = f"amqp://{user}:{password}@127.0.0.1:{rabbitmq_server.port}"
    database_url = postgres_url.replace("postgres@", f"postgres:{CANARY}-database@")
    shop = Shop(database_url, broker_url, *queue_names)
    shop.open_sale()
    return shop


def bad_events(shop: Shop) -> dict[bytes, str]:
    """Bodies, each with the reason of its dead letter."""
    envelope = {
        "queue_name": f"{CANARY}-queue",
        "actor_name": ["unhashable"],
        "args": [],
        "kwargs": {},
        "options": None,
        "message_id": str(uuid.uuid4()),
        "message_timestamp": 0,
    }
    return {
        f'{{"saleId": "{CANARY}'.encode(): "json",
        CANARY.encode("utf-16"): "encoding",
        shop.event(f"{CANARY}\x00"): "text",
        shop.event(CANARY * 50): "length",
        shop.event(CANARY, sale_id=str(uuid.uuid4())): "unknown_sale",
        json.dumps(envelope).encode(): "missing",
        shop.event(CANARY * 17_000): "too_large",
    }


def test_the_good_neighbours_are_committed_and_the_bad_ones_kept_byte_for_byte(
    canary_shop: Shop, start_worker: StartWorker
) -> None:
    """Nothing of an event, and no password, is in the log or in a dead letter's headers."""
    shop = canary_shop
    bad = bad_events(shop)
    users = [f"{CANARY}-{number}" for number in range(300)]
    bodies = [shop.event(user) for user in users]
    for position, body in enumerate(bad):
        bodies.insert(position * 40, body)
    shop.publish(bodies)

    worker = start_worker(shop)
    shop.wait_for_orders(len(users), 15)
    wait_until(
        lambda: shop.ready(shop.dead_letter_queue) == len(bad), 15, "all bad events are set aside"
    )
    shop.buy([f"{CANARY}-after"])
    shop.wait_for_orders(len(users) + 1, 5)
    worker.terminate()

    assert worker.wait(5) == 0
    letters = shop.take_all(shop.dead_letter_queue)
    assert {body: headers["x-flashsale-reason"] for body, headers in letters} == bad
    assert len(letters) == len(bad)
    shop.assert_settled([*users, f"{CANARY}-after"])
    assert worker.logged("events.dead_lettered")
    assert CANARY not in worker.log()
    for _, headers in letters:
        explained = headers["x-flashsale-reason"] != "unknown_sale"
        assert ("x-flashsale-explanation" in headers) == explained
        assert CANARY not in str(headers)


def test_what_a_constraint_refuses_is_isolated_and_its_neighbours_committed(
    shop: Shop, start_worker: StartWorker
) -> None:
    """A rule of the database that the parser knows nothing of."""
    with open_store(shop.database_url, migrated=True) as store:
        store.forbid_bad_users()
    users = [f"buyer-{number}" for number in range(300)]
    bad = [f"bad-{number}" for number in range(3)]
    mixed = [*users[:100], bad[0], *users[100:], *bad[1:]]
    shop.buy(mixed)

    worker = start_worker(shop)
    shop.wait_for_orders(len(users), 15)
    wait_until(lambda: shop.ready(shop.dead_letter_queue) == len(bad), 15, "the bad are set aside")
    worker.terminate()

    assert worker.wait(5) == 0
    letters = shop.take_all(shop.dead_letter_queue)
    assert sorted(body for body, _ in letters) == sorted(map(shop.event, bad))
    for _, headers in letters:
        assert headers["x-flashsale-reason"] == "constraint"
        assert headers["x-flashsale-sqlstate"] == "23514"
        assert headers["x-flashsale-explanation"] == "refused by forbidden (SQLSTATE 23514)"
        assert headers["x-flashsale-attempts"] == 1
    shop.assert_settled(users)
    assert not worker.logged("work.suspended")
    assert "bad-" not in worker.log()
