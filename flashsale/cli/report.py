"""``flashsale report``: how a sale went, as one page for those who ran it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from flashsale.cli import exits
from flashsale.cli.shared import DatabaseUrl, SaleId, progress_bar
from flashsale.database import close_database, open_database
from flashsale.settings import Settings
from flashsale.urls import DatabaseAddress
from flashsale.verification import CHECKS, verify

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
        return exits.USAGE
    settings = Settings.from_env()
    address = given or settings.database
    if not address.is_postgres:
        raise click.UsageError("a report is made from PostgreSQL, not from SQLite")
    click.echo(f"database: {address}", err=True)
    database = open_database(address, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
    try:
        with progress_bar("reading", len(CHECKS) + 1) as advance:
            figures = figures_of(database, sale)
            advance(1)
            verification = verify(database, sale, advance=lambda done: advance(done + 1))
    finally:
        close_database(database)
    letters = DeadLetters({})
    page = render(figures, verification, letters, made_at=datetime.now(UTC))
    output.write_text(page, encoding="utf-8")
    click.echo(f"{output}: {figures.orders:,} orders, {len(page) // 1024:,} KiB", err=True)
    return exits.OK
