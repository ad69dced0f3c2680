"""``flashsale report``: how a sale went, as one page for those who ran it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import click

from flashsale import exit_codes
from flashsale.cli.dead_letters_shared import looking, open_queue
from flashsale.cli.shared import DatabaseUrl, SaleId, progress_bar
from flashsale.database import close_database, open_database
from flashsale.dead_letters.holding import QueueIsQuorum
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.selection import look
from flashsale.errors import BrokerError
from flashsale.settings import Settings
from flashsale.urls import DatabaseAddress
from flashsale.verification import CHECKS, one_snapshot, verify_in_snapshot

_STATEMENT_TIMEOUT_SECONDS = 300.0


@click.command
@click.argument("sale", metavar="SALE", type=SaleId())
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    required=True,
    help="The HTML file to write.",
)
@click.option("--database", "given", type=DatabaseUrl(), help="Instead of DATABASE_URL.")
def report(sale: str, output: Path, given: DatabaseAddress | None) -> int:
    """Write one HTML page on a sale: pace, stock, lag, dead letters, and if the books are right.

    The page holds everything it needs, charts included, and names no shopper. It needs the extra
    `report`: pip install 'flashsale[report]'.

    \b
    Example:
      flashsale report 4f8c2a30-7d1e-4b6a-9c55-0e1f2a3b4c5d -o report.html
    """
    try:
        from flashsale.report.figures import figures_of  # noqa: PLC0415
        from flashsale.report.page import DeadLetters, render  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        click.echo(
            f"error: {missing.name} is not installed: pip install 'flashsale[report]'", err=True
        )
        return exit_codes.USAGE
    settings = Settings.from_env()
    if not output.absolute().parent.is_dir():  # before the reading, which may take minutes
        raise click.FileError(str(output), "there is no such folder")
    address = given or settings.database
    if not address.is_postgres:
        raise click.UsageError("a report is made from PostgreSQL, not from SQLite")
    click.echo(f"database: {address}", err=True)
    database = open_database(address, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
    try:
        # One moment for both: while a sale goes on, two would not agree.
        with progress_bar("reading", len(CHECKS) + 1) as advance, one_snapshot(database):
            figures = figures_of(database, sale)
            advance(1)
            verification = verify_in_snapshot(
                database, sale, advance=lambda done: advance(done + 1)
            )
    finally:
        close_database(database)
    letters, unknown_because = _dead_letters(settings, sale)
    if unknown_because:
        click.echo(f"dead letters are not counted: {unknown_because}", err=True)
    page = render(
        figures, verification, DeadLetters(letters, unknown_because), made_at=datetime.now(UTC)
    )
    output.write_text(page, encoding="utf-8")
    click.echo(f"{output}: {figures.orders:,} orders, {len(page) // 1024:,} KiB", err=True)
    return exit_codes.OK


def _dead_letters(settings: Settings, sale_id: str) -> tuple[Counter[str], str | None]:
    """The sale's dead letters by reason, or none of them and why they cannot be counted."""
    reasons: Counter[str] = Counter()
    try:
        with open_queue(settings, quorum=False) as queue, looking(queue) as show:

            def count(letter: DeadLetter) -> None:
                show(letter)
                if (letter.sale_id or "").lower() == sale_id:
                    reasons[letter.reason] += 1

            look(queue, count, max_event_bytes=settings.max_event_bytes)
    except (BrokerError, QueueIsQuorum) as error:
        return Counter(), str(error).splitlines()[0]
    return reasons, None
