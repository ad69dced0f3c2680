"""``flashsale status``: how it goes now."""

from __future__ import annotations

import json

import click
from rich.console import Console

from flashsale import exit_codes
from flashsale.cli import exits
from flashsale.cli.status_view import view
from flashsale.settings import Settings
from flashsale.status import Status, StatusWatch


@click.command
@click.option("--json", "as_json", is_flag=True, help="Write it to stdout as JSON.")
def status(as_json: bool) -> int:
    """Show the queues, the dead letters by reason, the orders per second, and each process here.

    RabbitMQ, the database and the workers' own files are asked side by side. One that is away is
    told in its place, and ends the command with exit code 3 (RabbitMQ) or 4 (the database). So does
    a queue that is missing where PURCHASE_QUEUE lists several.

    No purchase is touched. Of the dead letters, up to 1,000 are taken and given back at once, to
    read their reasons.

    \b
    Examples:
      flashsale status
      flashsale status --json | jq .broker.purchases.ready
    """
    with StatusWatch(Settings.from_env()) as watch:
        now = watch.look()
    if as_json:
        click.echo(json.dumps(now.record()))
    else:
        Console(highlight=False).print(view(now))
    return _code(now)


def _code(status: Status) -> int:
    for error in (status.broker_error, status.database_error):
        if error is not None:
            return exits.code_for(error)
    return exit_codes.BROKER if status.broker and status.broker.missing else exit_codes.OK
