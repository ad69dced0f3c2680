"""``flashsale doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flashsale import exit_codes
from flashsale.cli import exits
from flashsale.doctor import Examination, Finding, Level, examine
from flashsale.errors import SettingsError
from flashsale.settings import Settings

_STYLES = {
    Level.OK: "green",
    Level.UNKNOWN: "cyan",
    Level.WARN: "yellow",
    Level.FAIL: "bold red",
}


class HostAndPort(click.ParamType):  # type: ignore[type-arg]  # generic in recent versions only
    """An option's value such as mq.example:15672; gives the command both."""

    name = "HOST:PORT"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        host, _, port = value.rpartition(":")
        is_port = port.isdecimal() and int(port) < 65_536
        if not host or not is_port or "@" in host or "/" in host:
            self.fail("must be a host and a port; user and password are RABBITMQ_URL's", param, ctx)
        return host, int(port)


@click.command
@click.option(
    "--processes",
    type=click.IntRange(1, 10_000),
    help="Of all workers of this database. Default: those that run here, or 3.",
)
@click.option(
    "--management",
    type=HostAndPort(),
    help="RabbitMQ's management API. Default: port 15672 of the first node.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the findings to stdout as JSON.")
def doctor(processes: int | None, management: tuple[str, int] | None, as_json: bool) -> int:
    """Examine all that the worker needs, in the worker's own environment, and change nothing.

    Settings, versions, both servers, queues and their arguments, policies, tables and indexes,
    rights, the connections that the pool may open, the clocks. Each finding is ok, warn, fail, or
    unknown where this user is not told, with what to do about it.

    Ends with exit code 0 where nothing fails, else 1; 2 where the settings are wrong; 3 or 4 where
    RabbitMQ or the database could not be examined.

    \b
    Examples:
      flashsale doctor
      docker compose exec worker flashsale doctor
      flashsale doctor --json | jq '.findings[] | select(.level == "fail")'
    """
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        if not as_json:
            raise
        _show_json([Finding("environment", Level.FAIL, each) for each in error.problems])
        return exit_codes.USAGE
    examination = examine(settings, os.environ, processes=processes, management=management)
    if as_json:
        _show_json(examination.findings)
    else:
        Console(highlight=False).print(_table(examination.findings))
        levels = Counter(finding.level for finding in examination.findings)
        counted = ", ".join(f"{levels[level]} {level}" for level in Level if levels[level])
        click.echo(counted, err=True)
    return _code(examination)


def _code(examination: Examination) -> int:
    for error in examination.errors:
        return exits.code_for(error)
    failed = any(finding.level is Level.FAIL for finding in examination.findings)
    return exit_codes.FAILURE if failed else exit_codes.OK


def _show_json(findings: Sequence[Finding]) -> None:
    ok = all(finding.level is not Level.FAIL for finding in findings)
    click.echo(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("level")
    table.add_column("check", no_wrap=True)
    table.add_column("what was found, and what to do", overflow="fold")
    for finding in findings:
        says = Text(finding.says)
        if finding.remedy:
            says.append(f"\n→ {finding.remedy}", "bold")
        table.add_row(Text(finding.level, _STYLES[finding.level]), finding.check, says)
    return table
