"""The commands on several purchase queues: each is declared, filled, examined and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits
from flashsale.spreading import queue_for
from tests.conftest import QueueNames
from tests.support.shop import Shop

pytestmark = [pytest.mark.postgres, pytest.mark.rabbitmq]

Output = pytest.CaptureFixture[str]


@pytest.fixture
def shop(
    postgres_url: str,
    rabbitmq_url: str,
    queue_names: QueueNames,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    """With two purchase queues, in the environment of the commands."""
    first, letters = queue_names
    shop = Shop(postgres_url, rabbitmq_url, f"{first},{first}-1", letters)
    shop.open_sale()
    for name, value in shop.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLASHSALE_STATE_FOLDER", str(tmp_path / "state"))
    yield shop
    with shop.channel() as channel:
        channel.queue_delete(shop.purchase_queues[1])


def test_published_events_are_spread_and_each_shopper_has_one_queue(shop: Shop) -> None:
    code = exits.run(cli, ["publish", "--sale", shop.sale_id, "--count", "200"])

    assert code == exit_codes.OK
    assert sum(map(shop.ready, shop.purchase_queues)) == 200
    with shop.channel() as channel:
        for queue in shop.purchase_queues:
            _, _, body = channel.basic_get(queue, auto_ack=True)
            assert queue_for(body, shop.purchase_queues) == queue


def test_one_of_them_can_be_published_to_by_itself(shop: Shop) -> None:
    first, second = shop.purchase_queues
    exits.run(cli, ["topology"])

    code = exits.run(cli, ["publish", "--sale", shop.sale_id, "--count", "20", "--queue", second])

    assert code == exit_codes.OK
    assert (shop.ready(first), shop.ready(second)) == (0, 20)


def test_the_doctor_names_the_one_that_is_missing(shop: Shop, capsys: Output) -> None:
    exits.run(cli, ["topology"])
    with shop.channel() as channel:
        channel.queue_delete(shop.purchase_queues[1])
    capsys.readouterr()

    exits.run(cli, ["doctor", "--json"])

    findings = json.loads(capsys.readouterr().out)["findings"]
    of_queues = [each for each in findings if each["check"] == "purchase-queue"]
    assert [each["level"] for each in of_queues] == ["ok", "fail"]
    assert repr(shop.purchase_queues[1]) in of_queues[1]["says"]


def test_what_waits_in_any_of_them_is_accounted_for(
    shop: Shop, capsys: Output, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(40)]
    shop.buy(users)
    assert all(map(shop.ready, shop.purchase_queues))
    file = tmp_path / "published.jsonl"
    file.write_bytes(b"\n".join(map(shop.event, users)))

    code = exits.run(cli, ["verify", "--published", str(file), "--json"])

    found = json.loads(capsys.readouterr().out)["published"]
    assert (code, found["queued"], found["nowhere"]) == (exit_codes.OK, 40, 0)
