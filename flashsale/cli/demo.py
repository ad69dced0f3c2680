"""``flashsale demo``: a whole sale without any server, and an account of every event."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flashsale import exit_codes
from flashsale.accounting import Line
from flashsale.cli.shared import DatabaseUrl, Number, progress_bar
from flashsale.demonstration import Demonstration, Mix, Outcome
from flashsale.logs import configure_command
from flashsale.settings import Settings
from flashsale.urls import DatabaseAddress

_LETTERS = "dead_letters."
# Shown only where there are any: they tell of a defect.
_STRAYS = {
    "stray_orders": "orders that no event explains",
    "stray_audit_rows": "audit rows that no order explains",
    "stray_dead_letters": "dead letters of a good event, or for a wrong reason",
}


@click.command
@click.option(
    "--events",
    type=click.IntRange(1, 100_000_000),
    default=Mix.events,
    show_default=True,
    help="How many events to publish.",
)
@click.option(
    "--repeat-share",
    type=Number(0, 1),
    default=Mix.repeat_share,
    show_default=True,
    help="Share of good events whose shopper has bought before.",
)
@click.option(
    "--bad-share",
    type=Number(0, 1),
    default=Mix.bad_share,
    show_default=True,
    help="Share of events that can become no order: malformed, or of an unknown sale.",
)
@click.option(
    "--seed", type=int, default=Mix.seed, show_default=True, help="Another seed, other events."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Dramatiq's worker threads.",
)
@click.option(
    "--queues",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Spread the events over so many queues.",
)
@click.option("--database", "given", type=DatabaseUrl(), help="Instead of a temporary SQLite file.")
@click.option("--json", "as_json", is_flag=True, help="Write the account to stdout as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show the worker's log lines.")
def demo(
    events: int,
    repeat_share: float,
    bad_share: float,
    seed: int,
    threads: int,
    queues: int,
    given: DatabaseAddress | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Play a whole sale through, and account for every event of it.

    The worker is the real one; only RabbitMQ is replaced, by a queue in memory. Some shoppers buy
    twice, some events are malformed, some name an unknown sale. Exit code 0 means that each event
    became what it had to: one order with one audit row, a duplicate of one, or a dead letter with
    the right reason.

    FLASHSALE_… variables apply; DATABASE_URL and RABBITMQ_URL do not. A database given with
    --database is migrated first if need be. The demo's sale stays in it, and no other row is
    changed, save that any worker writes the audit rows that earlier orders lack.

    \b
    Examples:
      flashsale demo
      flashsale demo --events 1000000 --seed 7
      flashsale demo --bad-share 0.5 --repeat-share 0.3
      flashsale demo --queues 3
      flashsale demo --database postgresql://flashsale:…@localhost:5432/flashsale
      flashsale demo --json | jq .accounted_for
    """
    mix = Mix(events=events, repeat_share=repeat_share, bad_share=bad_share, seed=seed)
    own = {name: value for name, value in os.environ.items() if name.startswith("FLASHSALE_")}
    if queues > 1:
        own["PURCHASE_QUEUE"] = ",".join(f"purchase-{number}" for number in range(queues))
    settings = Settings.from_env(own)

    with ExitStack() as stack:
        address = given or _temporary(stack)
        where = str(address) if given else "a temporary SQLite database"
        click.echo(f"{events:,} purchase events, seed {seed}, in {where}", err=True)
        interrupted = stack.enter_context(_interrupts())
        with progress_bar("events settled", events) as advance:
            # Within the bar, which lets log lines pass above it.
            configure_command(settings.log_format, settings.log_level if verbose else "WARNING")
            demonstration = Demonstration(replace(settings, database=address), mix)
            outcome = demonstration.run(threads=threads, interrupted=interrupted, advance=advance)
    if as_json:
        click.echo(json.dumps(_summary(outcome, seed, demonstration.sale_id)))
    else:
        Console(highlight=False).print(_table(outcome))
    click.echo(_verdict(outcome, events), err=True)
    if given:
        click.echo(_remains(address, demonstration.sale_id), err=True)
    if interrupted.is_set():
        return exit_codes.INTERRUPTED
    return exit_codes.OK if outcome.is_accounted_for else exit_codes.FAILURE


def _temporary(stack: ExitStack) -> DatabaseAddress:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-demo-"))
    return DatabaseAddress("sqlite", f"{folder}/demo.db")


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, or SIGTERM, for an orderly end; a second one does not wait."""
    interrupted = threading.Event()

    def note(*_: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _table(outcome: Outcome) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{outcome.published:,} events")
    table.add_column("expected", justify="right")
    table.add_column("found", justify="right")
    table.add_column("")
    first_letter = True
    for line in outcome.lines:
        if line.name.startswith(_LETTERS) and first_letter:
            first_letter = False
            table.add_row("dead letters")
        if line.name not in _STRAYS or not line.is_right:
            state, style = _state(line)
            cells = (_title(line), f"{line.expected:,}", f"{line.found:,}", Text(state, style))
            table.add_row(*cells)
    return table


def _title(line: Line) -> str:
    if line.name.startswith(_LETTERS):
        return f"  {line.name.removeprefix(_LETTERS)}"
    if line.name == "audit_rows":
        return "CONFIRMED audit rows"
    return _STRAYS.get(line.name, line.name.replace("_", " "))


def _state(line: Line) -> tuple[str, str]:
    if line.is_right:
        return "ok", "green"
    return ("queued", "yellow") if line.is_open else ("WRONG", "bold red")


def _summary(outcome: Outcome, seed: int, sale_id: str) -> dict[str, Any]:
    return {
        "published": outcome.published,
        "accounted_for": outcome.is_accounted_for,
        "seconds": round(outcome.seconds, 3),
        "events_per_second": round(outcome.events_per_second, 1),
        "seed": seed,
        "sale_id": sale_id,
        "account": {
            line.name: {"expected": line.expected, "found": line.found} for line in outcome.lines
        },
    }


def _verdict(outcome: Outcome, events: int) -> str:
    pace = f"in {outcome.seconds:.2f} s ({outcome.events_per_second:,.0f}/s)"
    wrong = [_title(line).strip() for line in outcome.lines if not (line.is_right or line.is_open)]
    if wrong:
        return (
            f"NOT every event is accounted for: see {', '.join(wrong)} (-v shows the worker's log)"
        )
    if outcome.is_accounted_for and outcome.published == events:
        return f"{events:,} events {pace}; every one is accounted for"
    settled = outcome.published - outcome.still_queued
    return (
        f"stopped: {settled:,} of {events:,} events settled {pace}; none of them is unaccounted for"
    )


def _remains(address: DatabaseAddress, sale_id: str) -> str:
    # SQLite cascades only where a connection asks it to.
    cascade = "" if address.is_postgres else "PRAGMA foreign_keys=ON; "
    return (
        "the sale, its orders and its audit rows stay there; to delete them:\n"
        f"  {cascade}DELETE FROM sales WHERE id = '{sale_id}';"
    )
