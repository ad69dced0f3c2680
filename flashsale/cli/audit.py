"""``flashsale audit``: the audit trail, completed by hand."""

from __future__ import annotations

import json
from datetime import timedelta

import click

from flashsale import exit_codes
from flashsale.cli.shared import DatabaseUrl, Number
from flashsale.database import close_database, open_database
from flashsale.reconcile import Reconciler
from flashsale.settings import Settings
from flashsale.urls import DatabaseAddress
from flashsale.verification import GRACE, count_unaudited

_STATEMENT_TIMEOUT_SECONDS = 60.0


@click.group
def audit() -> None:
    """Look after the audit trail.

    \b
    Examples:
      flashsale audit reconcile --dry-run
      flashsale audit reconcile
    """


@audit.command
@click.option("--dry-run", is_flag=True, help="Count the missing rows; write nothing.")
@click.option(
    "--grace",
    type=Number(0, 3_600),
    default=GRACE.total_seconds(),
    show_default=True,
    help="Seconds that an order may wait for its worker to write its row.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the result to stdout as JSON.")
@click.option("--database", "given", type=DatabaseUrl(), help="Instead of DATABASE_URL.")
def reconcile(dry_run: bool, grace: float, as_json: bool, given: DatabaseAddress | None) -> int:
    """Write the CONFIRMED row of every order that lacks it.

    Running workers do this by themselves every minute, one of them for all. While one does, this
    command leaves it to them and ends with exit code 5. A row is never written twice.

    \b
    Examples:
      flashsale audit reconcile --dry-run
      flashsale audit reconcile
    """
    address = given or Settings.from_env().database
    click.echo(f"database: {address}", err=True)
    database = open_database(address, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
    settling = timedelta(seconds=grace)
    try:
        missing = count_unaudited(database, settling) if dry_run else None
        written = 0 if dry_run else _run(Reconciler(database), settling)
    finally:
        close_database(database)
    if written is None:
        click.echo(
            "a running worker keeps the audit trail complete and does so every minute;"
            " `flashsale verify` shows what is still missing",
            err=True,
        )
        return exit_codes.PARTIAL
    if as_json:
        click.echo(json.dumps({"missing": missing} if dry_run else {"written": written}))
    elif dry_run:
        click.echo(f"{missing:,} rows are missing")
    else:
        click.echo(f"{written:,} rows written")
    return exit_codes.OK


def _run(reconciler: Reconciler, settling: timedelta) -> int | None:
    try:
        return reconciler.run(settling=settling)
    finally:
        reconciler.release()
