"""``flashsale topology`` against a real node, under users who may make much or little."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from flashsale import exit_codes
from flashsale.cli.topology import topology
from tests.conftest import QueueNames
from tests.support.rabbitmq import PrivateRabbitMQ


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, rabbitmq_url: str, queue_names: QueueNames
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", rabbitmq_url)
    monkeypatch.setenv("PURCHASE_QUEUE", queue_names.purchase_queue)
    monkeypatch.setenv("DEAD_LETTER_QUEUE", queue_names.dead_letter_queue)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(topology, arguments, standalone_mode=False)


def states(*arguments: str) -> dict[str, str]:
    """The state of each part by its kind and name."""
    result = run("--json", *arguments)
    assert result.return_value == exit_codes.OK
    parts = json.loads(result.stdout)["parts"]
    return {f"{part['kind']} {part['name']}": part["state"] for part in parts}


def test_what_is_missing_is_listed_then_created_then_present(queue_names: QueueNames) -> None:
    purchase_queue, dead_letter_queue = queue_names
    parts = [
        f"queue {dead_letter_queue}",
        f"queue {purchase_queue}",
        f"exchange {dead_letter_queue}",
    ]

    assert states("--status") == dict.fromkeys(parts, "missing")
    assert states("--status") == dict.fromkeys(parts, "missing")  # it has made nothing
    assert states() == dict.fromkeys(parts, "created")
    assert states() == dict.fromkeys(parts, "present")


def test_people_are_told_line_by_line_and_what_to_do_next(queue_names: QueueNames) -> None:
    result = run("--status")

    assert result.stdout.splitlines()[1] == f"missing  queue {queue_names.purchase_queue}"
    assert "`flashsale topology`" in result.stderr


def test_a_queue_with_other_arguments_is_left_and_told(
    rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> None:
    with rabbitmq_server.connect() as connection:
        connection.channel().queue_declare(queue_names.purchase_queue, durable=True)

    result = run()

    assert result.return_value == exit_codes.OK
    assert f"notice: queue '{queue_names.purchase_queue}' is used as it is" in result.stderr


def test_a_user_who_may_not_make_the_exchange_ends_with_partial(
    rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    with rabbitmq_server.connect() as connection:
        connection.channel().exchange_delete(queue_names.dead_letter_queue)
    rabbitmq_server.ctl("add_user", "looker", "secret")
    rabbitmq_server.ctl("set_permissions", "looker", "^$", ".*", ".*")
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://looker:secret@127.0.0.1:{rabbitmq_server.port}")

    result = run()

    assert result.return_value == exit_codes.PARTIAL
    assert f"missing  exchange {queue_names.dead_letter_queue}" in result.stdout
    assert "notice: dead letters go through the default exchange" in result.stderr
