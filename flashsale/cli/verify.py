"""``flashsale verify``: are all orders there, once each, with their audit rows?"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flashsale import exit_codes
from flashsale.brokers.connections import answers_within, disconnect, open_blocking
from flashsale.brokers.topology import depths
from flashsale.cli.publish import Refusals, lines_of
from flashsale.cli.shared import DatabaseUrl, Number, SaleId, progress_bar
from flashsale.conservation import Comparison, compare
from flashsale.database import close_database, open_database
from flashsale.settings import Settings
from flashsale.urls import DatabaseAddress
from flashsale.verification import CHECKS, GRACE, Finding, Verification
from flashsale.verification import verify as check_tables

# For a node that has fallen silent.
_ANSWER_SECONDS = 5.0


@click.command
@click.option("--sale", metavar="UUID", type=SaleId(), help="Only this sale. Default: all.")
@click.option(
    "--published",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="What was published, an event a line: each must be an order, a duplicate of one, a dead"
    " letter, or still queued.",
)
@click.option(
    "--grace",
    type=Number(0, 3_600),
    default=GRACE.total_seconds(),
    show_default=True,
    help="Seconds that an order may wait for its audit row.",
)
@click.option(
    "--timeout",
    type=Number(1, 3_600),
    default=300.0,
    show_default=True,
    help="Seconds that one check may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the findings to stdout as JSON.")
@click.option("--database", "given", type=DatabaseUrl(), help="Instead of DATABASE_URL.")
def verify(
    sale: str | None,
    published: str | None,
    grace: float,
    timeout: float,
    as_json: bool,
    given: DatabaseAddress | None,
) -> int:
    """Search the tables for everything that must not be: exit code 1 if any of it is there.

    Duplicate buyers, oversold sales, orders without their audit row and the reverse, audit rows of
    another order, missing constraints and more. All is read in one snapshot while workers go on;
    nothing is written. Shown are ids of orders and rows, no shopper's.

    \b
    Examples:
      flashsale verify
      flashsale verify --sale 4f8c2a30-7d1e-4b6a-9c55-0e1f2a3b4c5d --json
      flashsale verify --published events.jsonl
    """
    settings = Settings.from_env()
    address = given or settings.database
    click.echo(f"database: {address}", err=True)
    database = open_database(address, statement_timeout_seconds=timeout)
    comparison, queues = None, (0, 0)
    try:
        with progress_bar("checks", len(CHECKS)) as advance:
            verification = check_tables(
                database, sale, grace=timedelta(seconds=grace), advance=advance
            )
        if published is not None:
            # Queues first: what leaves them meanwhile is an order by the time it is looked up.
            queues = _left_in_queues(settings)
            groups = lines_of(published, Refusals(), max_bytes=None)
            comparison = compare(database, groups, max_bytes=settings.max_event_bytes)
    finally:
        close_database(database)

    lost = comparison.unaccounted_for(queued=queues[0], dead_letters=queues[1]) if comparison else 0
    if as_json:
        click.echo(json.dumps(_as_json(verification, comparison, queues, lost)))
    else:
        console = Console(highlight=False)
        console.print(_table(verification))
        if comparison is not None:
            console.print(_account(comparison, queues, lost))
    click.echo(_verdict(verification, lost), err=True)
    return exit_codes.FAILURE if verification.violations or lost else exit_codes.OK


def _left_in_queues(settings: Settings) -> tuple[int, int]:
    connection = open_blocking(settings.broker_urls, "flashsale verify")
    try:
        with answers_within(connection, _ANSWER_SECONDS):
            *queued, dead = depths(
                connection, (*settings.purchase_queues, settings.dead_letter_queue)
            )
        return sum(depth.ready for depth in queued), dead.ready
    finally:
        disconnect(connection, _ANSWER_SECONDS)


def _table(verification: Verification) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check")
    table.add_column("cases", justify="right")
    table.add_column("what it is, and what to do", overflow="fold")
    for finding in verification.findings:
        table.add_row(
            finding.check.name,
            Text(f"{finding.cases:,}", "bold red" if finding.cases else "green"),
            _explained(finding) if finding.cases else "",
        )
    return table


def _explained(finding: Finding) -> str:
    shown = ", ".join(finding.examples)
    more = ", …" if finding.cases > len(finding.examples) else ""
    return f"{finding.check.meaning}: {shown}{more}\n{finding.check.remedy}"


def _account(comparison: Comparison, queues: tuple[int, int], lost: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{comparison.published:,} published events")
    table.add_column("", justify="right")
    table.add_row("orders", f"{comparison.orders:,}")
    table.add_row("duplicates of those", f"{comparison.duplicates:,}")
    table.add_row("good, without an order", f"{comparison.missing:,}")
    for reason, count in sorted(comparison.refused.items()):
        table.add_row(f"refused: {reason}", f"{count:,}")
    table.add_row("still queued", f"{queues[0]:,}")
    table.add_row("dead letters", f"{queues[1]:,}")
    table.add_row("nowhere", Text(f"{lost:,}", "bold red" if lost else "green"))
    if lost:
        table.add_row("first without an order", ", ".join(map(str, comparison.examples)))
    return table


def _verdict(verification: Verification, lost: int) -> str:
    facts = f"{verification.orders:,} orders, {verification.confirmed_rows:,} CONFIRMED audit rows"
    if verification.pending:
        facts += f"; {verification.pending:,} young orders still await their audit row"
    wrong = [finding.check.name for finding in verification.violations]
    if lost:
        wrong.append(f"{lost:,} published events are nowhere (where a worker runs, look again once")
        wrong[-1] += " the queue is empty: what it holds is counted in no queue)"
    return f"WRONG: {', '.join(wrong)} ({facts})" if wrong else f"nothing is wrong: {facts}"


def _as_json(
    verification: Verification,
    comparison: Comparison | None,
    queues: tuple[int, int],
    lost: int,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "ok": not verification.violations and not lost,
        "orders": verification.orders,
        "confirmed_rows": verification.confirmed_rows,
        "pending": verification.pending,
        "checks": {
            finding.check.name: {"cases": finding.cases, "examples": list(finding.examples)}
            for finding in verification.findings
        },
        "sales": [vars(stock) for stock in verification.stocks],
    }
    if comparison is not None:
        summary["published"] = {
            "events": comparison.published,
            "orders": comparison.orders,
            "duplicates": comparison.duplicates,
            "missing": comparison.missing,
            "refused": dict(comparison.refused),
            "first_missing": comparison.examples,
            "queued": queues[0],
            "dead_letters": queues[1],
            "nowhere": lost,
        }
    return summary
