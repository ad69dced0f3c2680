"""`flashsale verify` and `flashsale audit reconcile`, as an operator runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits
from flashsale.orders import OrderBook
from flashsale.reconcile import Reconciler
from tests.conftest import QueueNames
from tests.support.shop import Shop
from tests.support.stores import Store, open_store, purchases_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``flashsale …`` in the environment given; returns exit code, stdout, stderr."""

    def run_(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = exits.run(cli, arguments)
        return code, *capsys.readouterr()

    return run_


@pytest.fixture
def sqlite(tmp_path: Path) -> dict[str, str]:
    """The environment of an empty SQLite database."""
    environment = {"DATABASE_URL": f"sqlite:///{tmp_path}/flashsale.db"}
    with open_store(environment["DATABASE_URL"]):
        return environment


def sell(url: str, *users: str) -> str:
    """A sale with an order of each user; their audit rows are still to be written."""
    with open_store(url, migrated=True) as store:
        sale_id = store.add_sale()
        OrderBook(store.database).confirm(purchases_of(sale_id, *users), [None] * len(users))
        return sale_id


def test_sound_tables_end_in_zero(run: Run, sqlite: dict[str, str]) -> None:
    code, out, err = run(sqlite, "verify")
    assert code == exit_codes.OK
    assert "oversold" in out
    assert "nothing is wrong: 0 orders, 0 CONFIRMED audit rows" in err


def test_a_violation_ends_in_one_and_says_what_to_do(run: Run, sqlite: dict[str, str]) -> None:
    sell(sqlite["DATABASE_URL"], "ann")
    code, out, err = run(sqlite, "verify", "--grace", "0")
    assert code == exit_codes.FAILURE
    assert "flashsale audit reconcile" in out
    assert "WRONG: orders_without_audit" in err
    assert "ann" not in out + err


def test_the_remedy_it_names_is_one(run: Run, sqlite: dict[str, str]) -> None:
    sale_id = sell(sqlite["DATABASE_URL"], "ann", "bob")
    assert run(sqlite, "audit", "reconcile", "--grace", "0", "--dry-run")[:2] == (
        exit_codes.OK,
        "2 rows are missing\n",
    )
    assert run(sqlite, "audit", "reconcile", "--grace", "0")[:2] == (
        exit_codes.OK,
        "2 rows written\n",
    )

    code, out, _ = run(sqlite, "verify", "--sale", sale_id.upper(), "--grace", "0", "--json")
    summary = json.loads(out)
    assert code == exit_codes.OK
    assert (summary["ok"], summary["orders"], summary["confirmed_rows"]) == (True, 2, 2)
    assert summary["sales"] == [
        {"sale_id": sale_id, "name": "sale", "sold": 2, "total_stock": 1000}
    ]


@pytest.mark.postgres
def test_reconciling_is_left_to_a_worker_that_does_it(run: Run, postgres_store: Store) -> None:
    worker = Reconciler(postgres_store.database)
    assert worker.run() == 0
    address = postgres_store.database.connect_params
    url = f"postgresql://{address['user']}@{address['host']}:{address['port']}"
    try:
        code, out, err = run(
            {}, "audit", "reconcile", "--database", f"{url}/{postgres_store.database.database}"
        )
    finally:
        worker.release()
    assert (code, out) == (exit_codes.PARTIAL, "")
    assert "a running worker keeps the audit trail complete" in err


def test_a_database_without_tables_names_the_next_step(run: Run, tmp_path: Path) -> None:
    code, _, err = run({}, "verify", "--database", f"sqlite:///{tmp_path}/empty.db")
    assert code == exit_codes.DATABASE
    assert "flashsale migrate" in err


def test_a_sale_that_is_no_id_is_wrong_usage(run: Run, sqlite: dict[str, str]) -> None:
    code, _, err = run(sqlite, "verify", "--sale", "black-friday")
    assert code == exit_codes.USAGE
    assert "is not a sale's id" in err


@pytest.mark.rabbitmq
def test_every_published_event_is_accounted_for(
    run: Run, sqlite: dict[str, str], rabbitmq_url: str, queue_names: QueueNames, tmp_path: Path
) -> None:
    """Orders and a duplicate in the tables, one event still queued, a bad one; and one nowhere."""
    sale_id = sell(sqlite["DATABASE_URL"], "ann", "bob")
    queues = (queue_names.purchase_queue, queue_names.dead_letter_queue)
    shop = Shop(sqlite["DATABASE_URL"], rabbitmq_url, *queues)
    shop.sale_id = sale_id
    shop.buy(["queued"])
    with shop.channel() as channel:
        channel.basic_publish("", shop.dead_letter_queue, b"{}")
    events = [*map(shop.event, ("ann", "bob", "ann", "queued")), b"{}"]
    file = tmp_path / "published.jsonl"

    file.write_bytes(b"\n".join(events))
    arguments = ("verify", "--published", str(file), "--json")
    code, out, _ = run(shop.environment(), *arguments)
    assert code == exit_codes.OK
    assert json.loads(out)["published"] == {
        "events": 5,
        "orders": 2,
        "duplicates": 1,
        "missing": 1,
        "refused": {"missing": 1},
        "first_missing": [4],
        "queued": 1,
        "dead_letters": 1,
        "nowhere": 0,
    }

    file.write_bytes(b"\n".join([*events, shop.event("lost")]))
    code, out, err = run(shop.environment(), *arguments)
    assert code == exit_codes.FAILURE
    assert json.loads(out)["published"]["nowhere"] == 1
    assert "1 published events are nowhere" in err

    code, out, _ = run(shop.environment(), *arguments[:-1])
    assert code == exit_codes.FAILURE
    account = {
        line.rpartition("  ")[0].strip(): line.rpartition("  ")[2].strip()
        for line in out.partition("6 published events")[2].splitlines()
        if line.strip(" ─")
    }
    assert account == {
        "orders": "2",
        "duplicates of those": "1",
        "good, without an order": "2",
        "refused: missing": "1",
        "still queued": "1",
        "dead letters": "1",
        "nowhere": "1",
        "first without an order": "4, 6",
    }
