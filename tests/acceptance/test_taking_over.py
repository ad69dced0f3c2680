"""The NestJS worker and this one: side by side, one after the other, and back again.

The old one is a stand-in that does what it does, see tests/support/old_worker.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartWorker
from tests.support.api import API_MIGRATION, API_QUEUES, declare_as_the_api_does
from tests.support.postgres import PrivatePostgres
from tests.support.shop import Shop, with_repeats
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
OLD = [sys.executable, "-m", "tests.support.old_worker"]
SECONDS = 30
# So that it leaves some to others: it would take all that is there.
MODEST = {"FLASHSALE_PREFETCH": "1", "FLASHSALE_BATCH_SIZE": "1"}

StartOld = Callable[[], RunningWorker]
Row = Mapping[str, Any]


@pytest.fixture
def shop(empty_postgres_url: str, rabbitmq_url: str) -> Iterator[Shop]:
    """What the API and the old worker have made: tables, queues, and a sale."""
    shop = Shop(empty_postgres_url, rabbitmq_url, *API_QUEUES)
    shop.query(API_MIGRATION)
    shop.open_sale()
    with shop.channel() as channel:
        declare_as_the_api_does(channel, *API_QUEUES)
    yield shop
    with shop.channel() as channel:
        for queue in API_QUEUES:
            channel.queue_delete(queue)


@pytest.fixture
def start_old(shop: Shop) -> Iterator[StartOld]:
    workers: list[RunningWorker] = []

    def start() -> RunningWorker:
        # With its own environment, and nothing of this worker's.
        env = {
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": f"{shop.database_url}?connection_limit=30&pool_timeout=20",
            "RABBITMQ_URL": shop.broker_url,
            "NODE_ENV": "development",
            "WORKER_CONCURRENCY": "5",
        }
        workers.append(RunningWorker(env, command=OLD))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def flashsale(shop: Shop, *arguments: str) -> tuple[int, Any]:
    """The exit code of a command, and the JSON that it writes."""
    done = subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments, "--json"],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "FLASHSALE_REPLAY_SETTLE_SECONDS": "0.2",
            **shop.environment(),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def rows(shop: Shop, table: str) -> list[Row]:
    return [row for (row,) in shop.query(f"SELECT to_jsonb({table}) FROM {table}")]


def version(row: Row) -> int | None:
    """Of a row's id: the old worker's have 4, this one's 7 and 8."""
    return uuid.UUID(row["id"]).version


def stop(*workers: RunningWorker) -> None:
    for worker in workers:
        worker.terminate()
    assert [worker.wait(15) for worker in workers] == [0] * len(workers)


def bad_events(shop: Shop) -> dict[bytes, str | None]:
    """What neither takes: each with the reason that this worker has for it."""
    return {
        b"no json": "json",
        b'{"userId": "a"}': "missing",
        b'{"saleId": "sale_1", "userId": "a"}': "format",
        shop.event("a" * 256): "length",
        shop.event("a", str(uuid.uuid4())): None,  # the sale is not looked for in a letter
    }


def test_side_by_side_each_event_becomes_one_order_in_rows_of_one_form(
    shop: Shop, start_old: StartOld, start_worker: StartWorker
) -> None:
    users = [f"user-{number}" for number in range(800)]
    bad = bad_events(shop)
    old, new = [start_old(), start_old()], start_worker(shop, **MODEST)
    new.wait_for_log("broker.connected", SECONDS)

    shop.publish([*bad, *map(shop.event, with_repeats(users))])
    shop.wait_for_orders(len(users), SECONDS)
    wait_until(
        lambda: shop.ready(shop.dead_letter_queue) == len(bad), SECONDS, "the bad ones are dead"
    )
    stop(new, *old)

    assert sorted(body for body, _ in shop.take_all(shop.dead_letter_queue)) == sorted(bad)
    shop.assert_settled(users)
    for table, old_id, new_id in (("orders", 4, 7), ("order_audit_trail", 4, 8)):
        ours = [form(row) for row in rows(shop, table) if version(row) == new_id]
        theirs = [form(row) for row in rows(shop, table) if version(row) == old_id]
        assert len(ours) + len(theirs) == len(users)
        assert ours, "this worker took part"
        assert theirs, "and so did the old one"
        assert all(each == theirs[0] for each in theirs + ours)


def form(row: Row) -> Row:
    """A row without what may differ: all that docs/migrating-from-nestjs.md names."""
    about = {name: value for name, value in row.items() if name not in {"id", "user_id"}}
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(about.pop("created_at"))) < (
        timedelta(minutes=5)
    )
    if metadata := about.pop("metadata", None):
        uuid.UUID(metadata.pop("orderId"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", metadata.pop("processedAt"))
        metadata.pop("occurredAt", None)
        about["metadata"] = metadata
    return about


def test_its_dead_letters_are_understood_and_become_orders(
    shop: Shop, start_old: StartOld, start_worker: StartWorker, postgres_server: PrivatePostgres
) -> None:
    """It spends its four attempts within moments, also on events that are not at fault."""
    users = [f"user-{number}" for number in range(40)]
    bad = bad_events(shop)
    old = start_old()
    wait_until(shop.consumers, SECONDS, "the old worker consumes")
    allow_connections(postgres_server, shop, allowed=False)
    shop.publish([*bad, *map(shop.event, users)])
    count = len(users) + len(bad)
    wait_until(lambda: shop.ready(shop.dead_letter_queue) == count, SECONDS, "all are dead")
    stop(old)
    allow_connections(postgres_server, shop, allowed=True)
    # Where it cannot put an event back, it refuses it at its first attempt.
    shop.buy(["refused at once"])
    with shop.channel() as channel:
        method, _, _ = channel.basic_get(shop.purchase_queue)
        channel.basic_nack(method.delivery_tag, requeue=False)

    _, listed = flashsale(shop, "dead-letters", "list", "--limit", "100")

    letters = listed["letters"]
    assert len(letters) == count + 1
    assert {letter["reason"] for letter in letters} == {"broker_rejected"}
    assert [letter["attempts"] for letter in letters] == [4] * count + [None]
    assert all(letter["lastSeen"] for letter in letters)
    refusals = sorted(str(letter["refusal"]) for letter in letters)
    assert refusals == sorted([*map(str, bad.values()), *["None"] * (len(users) + 1)])

    worker = start_worker(shop)
    wait_until(lambda: shop.consumers() == 3, SECONDS, "the new worker consumes")
    (unknown,) = (letter["saleId"] for letter in letters if letter["saleId"] not in known(shop))
    shop.query(
        "INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)"
        " VALUES (%s, 'late', 1, now(), now(), now())",
        unknown,
    )
    code, summary = flashsale(shop, "dead-letters", "retry", "--expect", str(count + 1 - 4))

    assert (code, summary["done"], summary["failedAgain"]) == (5, len(users) + 2, 0)
    stop(worker)
    assert shop.orders() == sorted([*users, "a", "refused at once"])
    left = {body for body, _ in shop.take_all(shop.dead_letter_queue)}
    assert left == {body for body, reason in bad.items() if reason}


def known(shop: Shop) -> list[str | None]:
    """The sales there are, and what stands in a letter that names none."""
    return [shop.sale_id, "sale_1", None]


def allow_connections(server: PrivatePostgres, shop: Shop, *, allowed: bool) -> None:
    """Let the shop's database be away for everybody, or be there again."""
    name = shop.database_url.rpartition("/")[2]
    with server.connect("postgres").cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {allowed}')
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_back_to_the_old_worker_in_the_middle_of_a_sale(
    shop: Shop, start_old: StartOld, start_worker: StartWorker, how: str
) -> None:
    """What this one holds goes to the old one, which finishes without a second order."""
    users = [f"user-{number}" for number in range(1_200)]
    shop.slow_down(0.1)
    new = start_worker(shop, FLASHSALE_BATCH_SIZE="50")
    shop.buy(with_repeats(users))
    shop.wait_for_orders(100, SECONDS)

    getattr(new, how)()
    new.wait(15)
    done = shop.order_count()
    shop.query("DROP TRIGGER rest ON orders")
    old = [start_old(), start_old()]
    shop.wait_for_orders(len(users), SECONDS)
    wait_until(lambda: not shop.ready(shop.purchase_queue), SECONDS, "the repeats are done")
    stop(*old)
    if how == "kill":
        flashsale(shop, "audit", "reconcile", "--grace", "0")

    assert 100 <= done < len(users)
    shop.assert_settled(users)


def test_the_plan_can_be_typed_as_it_stands_there(
    shop: Shop, start_old: StartOld, tmp_path: Path
) -> None:
    """Each command says that all is well, but for the doctor before the tables are adopted."""
    users = [f"user-{number}" for number in range(60)]
    old = start_old()
    shop.buy(users[:20])
    shop.wait_for_orders(20, SECONDS)
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "FLASHSALE_STATE_FOLDER": str(tmp_path / "state"),
        "FLASHSALE_METRICS_PORT": "0",
        **shop.environment(),
    }
    cut_over, back = (typed(heading) for heading in ("## Cut over", "## Back"))
    failed = []
    for command in [*cut_over, *back]:
        if "dramatiq" in command:
            settings = dict(word.split("=") for word in command.split() if "=" in word)
            worker = RunningWorker({**env, **settings}, processes=1)
            worker.wait_for_log("broker.connected", SECONDS)
            shop.buy(users[20:])
            shop.wait_for_orders(len(users), SECONDS)
            continue
        if command == back[0]:
            stop(worker)
            shop.age_orders()
        done = subprocess.run(
            ["bash", "-c", command], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            failed.append((command, re.findall(r"not applied: \w+", done.stdout)))
    stop(old)
    worker.close()

    assert failed == [("flashsale doctor", ["not applied: 001_create_sales"])]
    shop.assert_settled(users)


def typed(heading: str) -> list[str]:
    page = (ROOT / "docs" / "migrating-from-nestjs.md").read_text(encoding="utf-8")
    section = page.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^ *\$ (.+)$", section, re.MULTILINE)
