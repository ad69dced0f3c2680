"""`flashsale report`: what the page tells is what the tables hold, and it needs nothing else."""

from __future__ import annotations

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pika.spec import BasicProperties

from flashsale import exit_codes
from flashsale.cli import cli, exits
from flashsale.report.figures import Figures, figures_of
from flashsale.report.page import DeadLetters, render
from flashsale.verification import UnknownSale, one_snapshot, verify, verify_in_snapshot
from tests.conftest import QueueNames
from tests.support.shop import Shop
from tests.support.stores import Store

pytestmark = pytest.mark.postgres

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def add_order(store: Store, sale_id: str, user_id: str, at: datetime, lag: float | None) -> None:
    """An order with its CONFIRMED row, `lag` seconds after its purchase where that is known."""
    order_id = str(uuid.uuid4())
    store.execute(
        "INSERT INTO orders (id, sale_id, user_id, created_at) VALUES (?, ?, ?, ?)",
        *(order_id, sale_id, user_id, at),
    )
    metadata = {"orderId": order_id}
    if lag is not None:
        metadata["occurredAt"] = (at - timedelta(seconds=lag)).isoformat()
    store.execute(
        "INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)"
        " VALUES (?, ?, ?, 'CONFIRMED', ?)",
        *(str(uuid.uuid4()), sale_id, user_id, json.dumps(metadata)),
    )


@pytest.fixture
def sale_id(postgres_store: Store) -> str:
    """A sale of 4 items, of which 3 were sold in its first second and one 2.5 s later."""
    sale_id = postgres_store.add_sale()
    postgres_store.execute("UPDATE sales SET total_stock = 4, name = ?", "Coats <b>&</b> hats")
    for number, lag in enumerate((0.1, 0.2, None)):
        at = NOON + timedelta(seconds=number / 4)
        add_order(postgres_store, sale_id, f"shopper-{number}", at, lag)
    add_order(postgres_store, sale_id, "shopper-3", NOON + timedelta(seconds=2.5), 0.6)
    return sale_id


def look(store: Store, sale_id: str) -> Figures:
    with one_snapshot(store.database):
        return figures_of(store.database, sale_id)


def page_of(store: Store, figures: Figures, letters: DeadLetters) -> str:
    return render(figures, verify(store.database), letters, made_at=NOON)


def test_the_figures_are_those_of_the_tables(postgres_store: Store, sale_id: str) -> None:
    figures = look(postgres_store, sale_id)

    assert (figures.orders, figures.busiest_second) == (4, 3)
    halves = [bucket.orders for bucket in figures.buckets]
    assert halves == [2, 1, 0, 0, 0, 1]
    assert figures.buckets[-1].begins_at == figures.last_at
    assert figures.buckets[0].lag_median == pytest.approx(0.15)
    assert figures.buckets[1].lag_median is None
    assert figures.sold_out_at == figures.last_at == NOON + timedelta(seconds=2.5)
    assert figures.lag is not None
    assert figures.lag.orders == 3
    assert figures.lag.median == pytest.approx(0.2)
    assert figures.lag.longest == pytest.approx(0.6)
    assert figures.audit_rows == {"CONFIRMED": 4}


def test_a_sale_with_stock_left_is_not_sold_out(postgres_store: Store, sale_id: str) -> None:
    postgres_store.execute("UPDATE sales SET total_stock = 5")
    assert look(postgres_store, sale_id).sold_out_at is None


def test_long_sales_are_told_in_longer_buckets(postgres_store: Store, sale_id: str) -> None:
    add_order(postgres_store, sale_id, "late", NOON + timedelta(days=2), None)
    figures = look(postgres_store, sale_id)
    assert figures.bucket == timedelta(minutes=30)
    assert [bucket.orders for bucket in figures.buckets] == [4, *[0] * 95, 1]


def test_a_sale_of_years_has_a_page_of_no_more_points(postgres_store: Store, sale_id: str) -> None:
    """A clock that was wrong once is enough for it."""
    add_order(postgres_store, sale_id, "late", NOON.replace(year=9000), None)
    figures = look(postgres_store, sale_id)
    assert len(figures.buckets) == 150
    assert "<svg" in page_of(postgres_store, figures, DeadLetters({}))


def test_a_sale_of_one_moment_has_a_chart_of_a_second(postgres_store: Store) -> None:
    sale_id = postgres_store.add_sale()
    for number in range(5):
        add_order(postgres_store, sale_id, f"shopper-{number}", NOON, 0.1)
    figures = look(postgres_store, sale_id)
    assert (figures.bucket, figures.busiest_second) == (timedelta(seconds=1), 5)
    assert [bucket.orders for bucket in figures.buckets] == [5]
    assert page_of(postgres_store, figures, DeadLetters({})).count("<svg") == 3


def test_a_sale_without_orders_has_a_page_too(postgres_store: Store) -> None:
    sale_id = postgres_store.add_sale()
    figures = look(postgres_store, sale_id)
    page = page_of(postgres_store, figures, DeadLetters({}))
    assert "no order yet" in page
    assert "<svg" not in page


def test_figures_and_checks_are_of_one_moment(postgres_store: Store, sale_id: str) -> None:
    with one_snapshot(postgres_store.database):
        figures = figures_of(postgres_store.database, sale_id)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(add_order, postgres_store, sale_id, "late", NOON, 0.1).result()
        verification = verify_in_snapshot(postgres_store.database, sale_id)

    assert (figures.orders, verification.orders) == (4, 4)
    assert verify(postgres_store.database, sale_id).orders == 5


def test_an_unknown_sale_is_an_error_that_says_so(postgres_store: Store) -> None:
    with pytest.raises(UnknownSale, match="there is no sale"):
        look(postgres_store, str(uuid.uuid4()))


def test_the_page_escapes_what_the_database_says_and_names_no_shopper(
    postgres_store: Store, sale_id: str
) -> None:
    page = page_of(postgres_store, look(postgres_store, sale_id), DeadLetters({"text": 2}))
    assert "Coats &lt;b&gt;&amp;&lt;/b&gt; hats" in page
    assert "shopper-" not in page


def test_the_page_loads_nothing_from_anywhere(postgres_store: Store, sale_id: str) -> None:
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "link", "img", "iframe"}
            links.extend(value or "" for name, value in attrs if name in {"src", "href"})

    page = page_of(postgres_store, look(postgres_store, sale_id), DeadLetters({}))
    Links().feed(page)
    assert page.count("<svg") == 3
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)", page)


def test_the_command_writes_the_page(
    postgres_store: Store,
    postgres_url: str,
    sale_id: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No RabbitMQ there: the page says so, and the rest of it is as it was.
    monkeypatch.setenv("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:1")
    output = tmp_path / "report.html"
    code = exits.run(cli, ["report", sale_id, "-o", str(output), "--database", postgres_url])
    assert code == exit_codes.OK
    page = output.read_text(encoding="utf-8")
    assert "Sold out in" in page
    assert "not counted" in page
    assert f"{output}: 4 orders" in capsys.readouterr().err


@pytest.mark.rabbitmq
def test_the_page_counts_the_dead_letters_of_its_sale_and_leaves_them_there(
    postgres_url: str,
    rabbitmq_url: str,
    queue_names: QueueNames,
    sale_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queues = (queue_names.purchase_queue, queue_names.dead_letter_queue)
    shop = Shop(postgres_url, rabbitmq_url, *queues)
    shop.publish([])
    with shop.channel() as channel:
        for sale, reason in ((sale_id, "text"), (sale_id, "text"), (str(uuid.uuid4()), "json")):
            headers = {"x-flashsale-reason": reason}
            properties = BasicProperties(headers=headers)
            body = shop.event("shopper", sale)
            channel.basic_publish("", shop.dead_letter_queue, body, properties)
    for name, value in shop.environment().items():
        monkeypatch.setenv(name, value)

    output = tmp_path / "report.html"
    assert exits.run(cli, ["report", sale_id, "-o", str(output)]) == exit_codes.OK
    page = output.read_text(encoding="utf-8")
    assert '<tr><td>text</td><td class="count">2</td></tr>' in page
    assert "<td>json</td>" not in page
    assert shop.ready(shop.dead_letter_queue) == 3


@pytest.mark.parametrize("output", ["nowhere/report.html", "/dev/full"])
def test_a_page_that_cannot_be_written_is_an_error_that_says_so(
    postgres_url: str, sale_id: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", sale_id, "-o", output, "--database", postgres_url]
    assert exits.run(cli, arguments) == exit_codes.FAILURE
    last = capsys.readouterr().err.splitlines()[-1]
    assert "there is no such folder" in last or "No space left" in last


def test_sqlite_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["report", str(uuid.uuid4()), "-o", str(tmp_path / "report.html")]
    code = exits.run(cli, [*arguments, "--database", f"sqlite:///{tmp_path}/flashsale.db"])
    assert code == exit_codes.USAGE
    assert "PostgreSQL" in capsys.readouterr().err
