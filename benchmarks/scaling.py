"""From the cost of one order to a million a second, on paper: ``python -m benchmarks.scaling``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from benchmarks.scenarios import pages, report
from benchmarks.scenarios.cells import BUSY, REPLICAS, Costs, Played, play, stories
from benchmarks.scenarios.load import purchases
from benchmarks.scenarios.pages import table
from benchmarks.stage import Stage
from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.cli.shared import progress_bar
from flashsale.database import close_database, open_database
from flashsale.orders import Confirmed, OrderBook, Outcome
from flashsale.purchases import Purchase
from flashsale.urls import parse_database_url
from tests.support.shop import Shop

DOCS = Path(__file__).parents[1] / "docs"
DRAIN, SCALING = DOCS / "benchmarks" / "drain.json", DOCS / "benchmarks" / "scaling.json"
PAGE = DOCS / "scaling.md"

_COMMAND = "python -m benchmarks.scaling"
_BATCH = 500
_RATES = (10_000, 100_000, 1_000_000)
_RATE = 1_000_000
_OWN_CORES = (4, 8, 16, 32)
_SALE_SECONDS = 30.0
_SEED = 7
_MISSING = 3


@click.command()
@click.option(
    "--orders", default=200_000, show_default=True, type=click.IntRange(min=5_000),
    help="Orders to write, for the bytes of one.",
)  # fmt: skip
@click.option("--page-only", is_flag=True, help="Measure nothing; make the page anew.")
@report.output_option("scaling")
def main(orders: int, page_only: bool, output: Path) -> None:
    """Measure what an order writes, and make the tables of docs/scaling.md.

    CPU times are those of docs/benchmarks/drain.json, which `python -m benchmarks` writes. What is
    measured here is in bytes: PostgreSQL's log, tables and indexes, and the event. That takes a
    server of its own and some seconds, and does not depend on how busy the machine is.

    Exit codes: 0 done, 1 the measurement failed, 2 usage, 3 drain.json is missing.

    Example: python -m benchmarks.scaling --page-only
    """
    if not page_only:
        with Stage() as stage:
            found = measure(stage.fresh_shop(), orders)
            report.write(output, stage, {"orders": orders}, bytes_per_order=found)
    for needed in (DRAIN, SCALING):
        if not needed.exists():
            click.echo(f"{needed} is missing: run python -m benchmarks, then this", err=True)
            sys.exit(_MISSING)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), DRAIN, SCALING), encoding="utf-8")
    click.echo(f"written to {PAGE}", err=True)


def measure(shop: Shop, orders: int) -> dict[str, float]:
    """Write orders and their audit rows as the worker does, and tell what one came to."""
    address = parse_database_url(shop.database_url)
    database = open_database(address)
    book, trail = OrderBook(database), AuditTrail(database)
    bodies = [*purchases(shop.sale_id, 0, orders)]
    try:
        ((before,),) = shop.query("SELECT pg_current_wal_lsn()")
        with progress_bar("Writing orders", orders) as advance:
            for first in range(0, orders, _BATCH):
                _confirm(book, trail, [*map(Purchase.parse, bodies[first : first + _BATCH])])
                advance(min(first + _BATCH, orders))
        ((wal, stored, count),) = shop.query(
            "SELECT pg_current_wal_lsn() - %s::pg_lsn, pg_total_relation_size('orders')"
            " + pg_total_relation_size('order_audit_trail'), (SELECT count(*) FROM orders)",
            before,
        )
    finally:
        close_database(database)
    if count != orders:
        raise click.ClickException(f"{count} orders were written, not {orders}")
    return {
        "wal_bytes": round(float(wal) / orders, 1),
        "stored_bytes": round(stored / orders, 1),
        "event_bytes": round(sum(map(len, bodies)) / orders, 1),
    }


def _confirm(book: OrderBook, trail: AuditTrail, batch: Sequence[Purchase]) -> None:
    outcomes: list[Outcome | None] = [None] * len(batch)
    book.confirm(batch, outcomes)
    trail.record(
        AuditEntry.confirmed(purchase.sale_id, purchase.user_id, outcome.order_id, now())
        for purchase, outcome in zip(batch, outcomes, strict=True)
        if isinstance(outcome, Confirmed)
    )
    trail.flush()


def filled(page: str, drain: Path, scaling: Path) -> str:
    """The page with its tables made from these two documents."""
    costs = Costs.of(*(json.loads(path.read_text(encoding="utf-8")) for path in (drain, scaling)))
    return pages.filled(page, _COMMAND, _tables(costs))


def _tables(costs: Costs) -> Iterator[str]:
    yield "Measured, of one order:\n"
    yield from table(
        ("Worker", "PostgreSQL", "RabbitMQ", "Log", "Tables and indexes", "Event", "One machine"),
        [
            (
                *(f"{us:.0f} µs" for us in (costs.worker, costs.postgresql, costs.rabbitmq)),
                *(f"{each:.0f} B" for each in (costs.wal_bytes, costs.stored_bytes)),
                f"{costs.event_bytes:.0f} B",
                f"{costs.cores} cores, {_count(costs.orders_per_second)} orders/s",
            )
        ],
    )
    yield f"\nReckoned: cores that are busy, and planned at {BUSY:.0%}, and bytes:\n"
    yield from table(
        ("Orders/s", "Worker", "PostgreSQL", "RabbitMQ", f"RabbitMQ, {REPLICAS} copies",
         "Cores planned", "Queues", "Log", "Stored"),
        [_asked(costs, rate) for rate in _RATES],
    )  # fmt: skip
    yield f"\nReckoned: cells for {_count(_RATE)} orders/s, by what one cell is:\n"
    whole = BUSY * costs.orders_per_second
    cells = [(f"the machine that was measured, {costs.cores} cores for all", whole)]
    cells += [
        (f"a PostgreSQL with {cores} cores of its own", costs.cell_of(cores))
        for cores in _OWN_CORES
    ]
    yield from table(
        ("A cell", "Orders/s", "Cells", "Queues in it", "Log of it"),
        [
            (
                what,
                _count(rate),
                -(-_RATE // round(rate)),
                costs.queues_for(rate),
                f"{rate * costs.wal_bytes / 1e6:,.0f} MB/s",
            )
            for what, rate in cells
        ],
    )
    number = -(-_RATE // round(whole))
    yield (
        f"\nPlayed: {_count(_RATE)} events/s for {_SALE_SECONDS:.0f} s, on {number} cells as the"
        f" machine that was measured, of {_count(costs.orders_per_second)} orders/s each:\n"
    )
    played = [
        (story.title, play(story, _RATE, _SALE_SECONDS, costs.orders_per_second, _SEED))
        for story in stories(number, _SEED)
    ]
    yield from table(
        ("Events are spread", "Load of the busiest cell", "Half wait", "99 % wait", "Longest"),
        [(title, *_waits(each)) for title, each in played],
    )


def _asked(costs: Costs, rate: int) -> Sequence[object]:
    cores = costs.cores_for(rate)
    copies = REPLICAS * cores["rabbitmq"]
    planned = (cores["worker"] + cores["postgresql"] + copies) / BUSY
    return (
        _count(rate),
        *(f"{each:.1f}" for each in cores.values()),
        f"{copies:.1f}",
        f"{planned:.0f}",
        costs.queues_for(rate),
        f"{rate * costs.wal_bytes / 1e6:,.0f} MB/s",
        f"{rate * costs.stored_bytes * 3_600 / 1e9:,.0f} GB/h",
    )


def _waits(played: Played) -> Sequence[str]:
    waits = (played.median_wait, played.p99_wait, played.longest_wait)
    return (f"{played.busiest:.0%}", *(f"{w:,.1f} s" if w else "under 0.1 s" for w in waits))


def _count(number: float) -> str:
    return f"{number:,.0f}"


if __name__ == "__main__":
    main()
