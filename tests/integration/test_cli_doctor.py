"""`flashsale doctor` names each fault that is planted, and what to do about it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits
from tests.conftest import QueueNames
from tests.support.letters import LetterBox, event
from tests.support.patients import Patient
from tests.support.ports import free_port
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.relays import black_hole
from tests.support.shop import Shop
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.rabbitmq]

_ENOUGH_SECONDS = 7.0
DAY = 86_400


@pytest.fixture(scope="module")
def managed_rabbitmq(rabbitmq_server: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    with PrivateRabbitMQ(management=True) as server:
        yield server


def test_nothing_is_said_against_a_sound_set_up_and_nothing_is_changed(patient: Patient) -> None:
    shop = patient.shop
    box = LetterBox(shop.broker_url, QueueNames(shop.purchase_queue, shop.dead_letter_queue))
    box.put([event("ann")])
    shop.buy(["bob"])

    assert patient.examine() == (exit_codes.OK, [])

    assert shop.order_count() == 0
    with shop.channel() as channel:
        method, _, body = channel.basic_get(shop.purchase_queue, auto_ack=True)
        assert (method.redelivered, body) == (False, shop.event("bob"))
    assert box.bodies(box.letters) == [event("ann")]


def remake_purchases(**declared: Any) -> Callable[[Patient], None]:
    return lambda patient: patient.remake(patient.shop.purchase_queue, **declared)


def remake_letters(**declared: Any) -> Callable[[Patient], None]:
    return lambda patient: patient.remake(patient.shop.dead_letter_queue, **declared)


def delete_exchange(patient: Patient) -> None:
    with patient.shop.channel() as channel:
        channel.exchange_delete(patient.shop.dead_letter_queue)


@pytest.mark.parametrize(
    ("plant", "level", "check", "says"),
    [
        (remake_letters(durable=False), "fail", "dead-letter-queue", "is not durable"),
        (remake_letters(auto_delete=True), "fail", "dead-letter-queue", "last consumer leaves"),
        (
            remake_letters(arguments={"x-message-ttl": DAY}),
            "fail",
            "dead-letter-queue",
            "message-ttl=86400",
        ),
        (
            remake_letters(arguments={"x-max-length": 9}),
            "fail",
            "dead-letter-queue",
            "max-length=9",
        ),
        (
            remake_letters(arguments={"x-queue-type": "quorum", "x-max-length-bytes": 9}),
            "fail",
            "dead-letter-queue",
            "max-length-bytes=9",
        ),
        (
            remake_letters(arguments={"x-queue-type": "quorum"}),
            "warn",
            "dead-letter-queue",
            "queue-type='quorum'",
        ),
        (remake_purchases(), "fail", "purchase-queue", "dead-letter-routing-key=None"),
        (
            remake_purchases(
                arguments={
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": "purchase_dlq",
                }
            ),
            "fail",
            "purchase-queue",
            "dead-letter-routing-key='purchase_dlq'",
        ),
        (delete_exchange, "warn", "dead-letter-exchange", "does not exist"),
    ],
)
def test_each_fault_of_the_queues_is_named(
    patient: Patient, plant: Callable[[Patient], None], level: str, check: str, says: str
) -> None:
    plant(patient)

    code, findings = patient.examine()

    assert code == (exit_codes.FAILURE if level == "fail" else exit_codes.OK)
    assert [f["remedy"] for f in findings if says in f["says"] and f["check"] == check] != []
    assert {(f["level"], f["check"]) for f in findings if says in f["says"]} == {(level, check)}


def test_a_queue_that_is_missing_is_named_and_not_made(patient: Patient) -> None:
    queue = patient.shop.purchase_queue
    with patient.shop.channel() as channel:
        channel.queue_delete(queue)

    for _ in range(2):
        code, (finding,) = patient.examine()
        assert code == exit_codes.FAILURE
        assert f"'{queue}' does not exist" in finding["says"]
        assert "flashsale topology" in finding["remedy"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [(("^$", ".*", "^$"), "may not read from"), (("^$", "^$", ".*"), "may not write to")],
    ids=["read", "write"],
)
def test_what_the_user_of_rabbitmq_may_not_do_is_named(
    patient: Patient, rabbitmq_server: PrivateRabbitMQ, pattern: tuple[str, ...], says: str
) -> None:
    user = f"user-{time.monotonic_ns()}"
    rabbitmq_server.ctl("add_user", user, "canary")
    rabbitmq_server.ctl("set_permissions", user, *pattern)
    patient.set(RABBITMQ_URL=f"amqp://{user}:canary@127.0.0.1:{rabbitmq_server.port}")

    code, findings = patient.examine()

    rabbitmq_server.ctl("delete_user", user)
    assert code == exit_codes.FAILURE
    (failed,) = [finding for finding in findings if finding["level"] == "fail"]
    assert says in failed["says"]
    assert "canary" not in json.dumps(findings)
    # This user may not declare, so the arguments are not told either.
    told = {finding["check"] for finding in findings if finding["level"] == "unknown"}
    assert told == {"purchase-queue", "dead-letter-queue"}


def test_a_policy_that_loses_letters_is_named_where_the_management_api_answers(
    patient: Patient, managed_rabbitmq: PrivateRabbitMQ
) -> None:
    patient.set(
        RABBITMQ_URL=managed_rabbitmq.url(), PURCHASE_QUEUE="purchase", DEAD_LETTER_QUEUE="letters"
    )
    api = managed_rabbitmq.management_url.rpartition("@")[2]
    Shop("", managed_rabbitmq.url(), "purchase", "letters").publish([])
    managed_rabbitmq.ctl(
        *("set_policy", "ttl", "^letters$", '{"message-ttl": 60000}', "--apply-to", "queues")
    )

    def named() -> list[dict[str, str]]:
        return [f for f in patient.examine("--management", api)[1] if f["level"] == "fail"]

    # The API's statistics are as old as their interval.
    (finding,) = wait_until(named, 20, "the policy is named")
    assert finding["check"] == "policies"
    assert "'letters' has the policy message-ttl=60000" in finding["says"]
    assert "clear_policy" in finding["remedy"]


def test_the_names_in_the_api_are_proposed_where_its_queues_have_them(
    patient: Patient, managed_rabbitmq: PrivateRabbitMQ
) -> None:
    names = {"PURCHASE_QUEUE": "purchase", "DEAD_LETTER_QUEUE": "purchase.XQ"}
    patient.set(RABBITMQ_URL=managed_rabbitmq.url(), **names)
    with managed_rabbitmq.connect() as connection:
        channel = connection.channel()
        for name in names.values():
            channel.queue_delete(name)
    Shop("", managed_rabbitmq.url(), "purchase_queue", "purchase_dlq").publish([])

    failed = [finding for finding in patient.examine()[1] if finding["level"] == "fail"]

    remedies = ["set DEAD_LETTER_QUEUE=purchase_dlq", "set PURCHASE_QUEUE=purchase_queue"]
    assert [finding["remedy"] for finding in failed] == remedies

    # A worker that was started so has made queues of its own, and waits at them for ever.
    Shop("", managed_rabbitmq.url(), *names.values()).publish([])
    code, findings = patient.examine()

    assert code == exit_codes.OK
    proposed = [finding["remedy"] for finding in findings if "as the API" in finding["says"]]
    assert proposed == [f"{remedy}, unless it is somebody else's" for remedy in remedies]


def test_silent_servers_are_named_and_do_not_hold_it_up(patient: Patient) -> None:
    with black_hole() as port:
        patient.set(
            DATABASE_URL=f"postgresql://user:canary@127.0.0.1:{port}/flashsale",
            RABBITMQ_URL=f"amqp://user:canary@127.0.0.1:{port}",
        )
        begun = time.monotonic()
        code, findings = patient.examine()

    assert time.monotonic() - begun < _ENOUGH_SECONDS
    assert code == exit_codes.BROKER
    assert [(finding["check"], finding["level"]) for finding in findings] == [
        ("rabbitmq", "fail"),
        ("database", "fail"),
    ]
    assert "canary" not in json.dumps(findings)


def test_classic_queues_are_named_where_quorum_queues_are_wanted(patient: Patient) -> None:
    patient.set(PURCHASE_QUEUE_TYPE="quorum")

    code, findings = patient.examine()

    assert code == exit_codes.OK
    assert [(finding["level"], finding["check"]) for finding in findings] == [
        ("warn", "dead-letter-queue"),
        ("warn", "purchase-queue"),
    ]
    assert "lives on one node" in findings[0]["remedy"]


def test_of_several_nodes_each_that_is_away_is_named(patient: Patient) -> None:
    away = free_port()
    patient.set(RABBITMQ_URL=f"amqp://127.0.0.1:{away};{patient.shop.broker_url}")

    code, (finding,) = patient.examine()

    assert code == exit_codes.OK
    assert finding["level"] == "warn"
    assert f"127.0.0.1:{away}" in finding["says"]


def test_people_see_each_finding_with_its_remedy(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patient.shop.query("DROP INDEX idx_orders_created_at")
    monkeypatch.setenv("COLUMNS", "200")

    assert exits.run(cli, ["doctor"]) == exit_codes.OK

    out, err = capsys.readouterr()
    assert "→ CREATE INDEX CONCURRENTLY idx_orders_created_at ON orders (created_at DESC)" in out
    assert "1 warn" in err
