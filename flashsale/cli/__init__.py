"""The ``flashsale`` command: everything beside the worker, which is ``dramatiq flashsale.actors``.

A command's module is imported when that command is asked for, so that `flashsale --help` and the
small commands start at once. The module defines a click command of the command's name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

import flashsale
from flashsale.cli import exits


class _Entry(NamedTuple):
    module: str
    summary: str


#: The commands, in the order of `flashsale --help`.
COMMANDS = {
    "migrate": _Entry("flashsale.cli.migrate", "Create the tables, or adopt the API's own."),
    "topology": _Entry("flashsale.cli.topology", "Create the queues, where a worker may not."),
    "publish": _Entry("flashsale.cli.publish", "Publish purchase events, all confirmed."),
    "health": _Entry("flashsale.cli.health", "Say whether the workers here live, and are ready."),
    "status": _Entry("flashsale.cli.status", "Show how it goes now: queues, orders, workers."),
    "top": _Entry("flashsale.cli.top", "Show the same live, on a terminal."),
    "doctor": _Entry("flashsale.cli.doctor", "Examine servers, tables and settings; change none."),
    "verify": _Entry("flashsale.cli.verify", "Search the tables for anything that must not be."),
    "report": _Entry("flashsale.cli.report", "Write one page on how a sale went."),
    "audit": _Entry("flashsale.cli.audit", "Complete the audit trail now."),
    "dead-letters": _Entry("flashsale.cli.dead_letters", "See, replay or discard dead letters."),
    "completion": _Entry(
        "flashsale.cli.completion", "Let bash, zsh or fish complete this command."
    ),
    "demo": _Entry("flashsale.cli.demo", "Play a whole sale through, with nothing installed."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(COMMANDS[cmd_name].module), cmd_name.replace("-", "_")
        )
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The stock one loads every command that fits, for the same reason as the one below.
        fitting = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*fitting, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # The stock one loads every command for its first line of help.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(flashsale.__version__, prog_name="flashsale")
def cli() -> None:
    """Look after a flash sale's purchases: everything beside the worker itself.

    The worker is `dramatiq flashsale.actors --processes 3`. Data goes to stdout, talk to stderr.

    \b
    Exit codes:
      0    done
      1    failed
      2    wrong usage or settings
      3    RabbitMQ failed
      4    the database failed
      5    done in part
      130  interrupted
    """


def main() -> None:
    """The entry point of ``flashsale`` and of ``python -m flashsale``."""
    sys.exit(exits.run(cli))
