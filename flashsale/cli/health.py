"""``flashsale health``: for the health check of a container, from the worker's own files."""

from __future__ import annotations

import click

from flashsale import exit_codes
from flashsale.health import why_not_alive, why_not_ready
from flashsale.reports import read_reports, running_workers
from flashsale.settings import Settings


@click.command
@click.option("--live", "asked", flag_value="live", default="live", help="Do the loops move?")
@click.option("--ready", "asked", flag_value="ready", help="Does it consume and write orders?")
def health(asked: str) -> int:
    """Say whether the workers of this machine, or container, are well: exit code 0, or 1 and why.

    It reads the files that the workers write each second to FLASHSALE_STATE_FOLDER, and asks
    neither RabbitMQ nor PostgreSQL. --live, the default, is for restarts: it fails for nothing
    that a restart does not mend. --ready is for deployments: every process consumes, its database
    takes orders, and it is not stopping.

    \b
    Examples:
      flashsale health --live
      docker compose exec worker flashsale health --ready
    """
    workers = running_workers(Settings.from_env().state_folder)
    reports = [report for worker in workers for report in read_reports(worker)]
    causes = why_not_ready(reports) if asked == "ready" else why_not_alive(reports)
    click.echo("; ".join(causes) or "ok")
    return exit_codes.FAILURE if causes else exit_codes.OK
