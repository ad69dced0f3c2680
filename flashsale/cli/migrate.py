"""``flashsale migrate``: the tables, made, adopted or taken away."""

from __future__ import annotations

import json

import click
import peewee

from flashsale import exit_codes, migration
from flashsale.cli.shared import DatabaseUrl
from flashsale.database import close_database, open_database
from flashsale.settings import Settings
from flashsale.urls import DatabaseAddress

# Also the wait for another migration: the session waits half of it for a lock.
_STATEMENT_TIMEOUT_SECONDS = 60.0


@click.command
@click.option("--status", "show_status", is_flag=True, help="List the migrations; write nothing.")
@click.option(
    "--down",
    metavar="NAME",
    help="Undo the migrations down to and including NAME, newest first. Their tables are dropped,"
    " also adopted ones, but never one that holds rows.",
)
@click.option("--fake", is_flag=True, help="Record the migrations as applied without running them.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
@click.option("--yes", is_flag=True, help="Do not ask before --down.")
@click.option("--database", "given", type=DatabaseUrl(), help="Instead of DATABASE_URL.")
def migrate(
    show_status: bool,
    down: str | None,
    fake: bool,
    as_json: bool,
    yes: bool,
    given: DatabaseAddress | None,
) -> int:
    """Create the tables in the database of DATABASE_URL, or adopt the API's own.

    All missing migrations are applied or none is. It may run any number of times and in several
    places at once, so every deployment can simply start with it. A table that exists is checked
    and left as it is.

    \b
    Examples:
      flashsale migrate
      flashsale migrate --status --json
      flashsale migrate --down 003_create_order_audit_trail
      flashsale migrate --database sqlite:///demo.db
    """
    if sum((show_status, down is not None, fake)) > 1:
        raise click.UsageError("--status, --down and --fake exclude each other")
    address = given or Settings.from_env().database
    click.echo(f"database: {address}", err=True)
    database = open_database(address, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
    try:
        if show_status:
            return _show_status(database, as_json)
        if down is not None:
            return _roll_back(database, down, as_json, yes)
        return _apply(database, fake, as_json)
    finally:
        close_database(database)


def _show_status(database: peewee.Database, as_json: bool) -> int:
    states = migration.status(database)
    if as_json:
        click.echo(json.dumps({"migrations": [state._asdict() for state in states]}))
    else:
        for state in states:
            click.echo(f"{'applied' if state.applied else 'missing'}  {state.name}")
    if not all(state.applied for state in states):
        click.echo("run `flashsale migrate` to apply what is missing", err=True)
    return exit_codes.OK


def _apply(database: peewee.Database, fake: bool, as_json: bool) -> int:
    done = migration.migrate(database, fake=fake)
    _report("recorded" if fake else "applied", done, as_json)
    if not done:
        count = len(migration.status(database))
        click.echo(f"nothing to do: {count} migrations were applied already", err=True)
    return exit_codes.OK


def _roll_back(database: peewee.Database, name: str, as_json: bool, yes: bool) -> int:
    question = f"Undo the migrations down to {name} and drop their tables? (--yes does not ask)"
    if not yes and not click.confirm(question, err=True):
        click.echo("nothing was changed", err=True)
        return exit_codes.FAILURE
    _report("rolled_back", migration.roll_back(database, name), as_json)
    return exit_codes.OK


def _report(what: str, names: list[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({what: names}))
    else:
        for name in names:
            click.echo(f"{what.replace('_', ' ')}  {name}")
