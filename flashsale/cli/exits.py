"""How a command ends: the one place that turns what has happened into an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import click

from flashsale import exit_codes
from flashsale.errors import BrokerError, FlashsaleError, SettingsError, StoreError
from flashsale.redaction import without_credentials


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run `command` and return its exit code; `arguments` are the process's own by default.

    A command returns its code, or None for success. An error that flashsale raises on purpose is
    told on stderr without a traceback; any other is a defect and keeps its traceback.
    """
    try:
        code = command.main(arguments, prog_name="flashsale", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        # click quotes what it does not understand, which may be a URL with its password.
        shown = io.StringIO()
        error.show(shown)
        click.echo(without_credentials(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except click.Abort:  # Ctrl-C, or nobody there to answer a question
        click.echo("interrupted", err=True)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        _drop_the_rest()  # the reader has left
        return exit_codes.FAILURE
    except OSError as error:
        # Of a file or a disk: the servers' own are FlashsaleErrors.
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        _drop_the_rest()
        return exit_codes.FAILURE
    except FlashsaleError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        return code_for(error)
    return code if isinstance(code, int) else exit_codes.OK


def _drop_the_rest() -> None:
    """Let the interpreter's last flush of stdout not fail as well, with a traceback."""
    with contextlib.suppress(OSError, ValueError):  # under a test it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def code_for(error: FlashsaleError) -> int:
    """The exit code that says which part the operator has to look at."""
    if isinstance(error, SettingsError):
        return exit_codes.USAGE
    if isinstance(error, BrokerError):
        return exit_codes.BROKER
    if isinstance(error, StoreError):
        return exit_codes.DATABASE
    return exit_codes.FAILURE
