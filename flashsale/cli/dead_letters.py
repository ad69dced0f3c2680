"""``flashsale dead-letters``: look at the dead letters, and let them leave in one of three ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import click

from flashsale import exit_codes
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.cli.dead_letters_change import discard, retry
from flashsale.cli.dead_letters_shared import (
    Wanted,
    choosing,
    id_option,
    json_option,
    looking,
    open_queue,
    quorum_option,
    show_groups,
    when,
)
from flashsale.cli.shared import progress_bar
from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.files import BadLine, body_fields, export_line, import_line
from flashsale.dead_letters.groups import Groups
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.selection import look
from flashsale.redaction import printable
from flashsale.settings import Settings

_LONGEST_LINE_BYTES = 16_777_216
_MOST_SHOWN = 20
_REFUSALS_SHOWN = 20
_BODY_SHOWN = 4_096
_COPY_CHARACTERS = 65_536


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dead_letters() -> None:
    """See, replay or discard what the worker could not turn into orders.

    Looking changes nothing: letters are held for the moment of the look, and return to their
    places, also when the command is killed.

    \b
    Examples:
      flashsale dead-letters groups
      flashsale dead-letters list --reason unknown_sale --older 10m
      flashsale dead-letters show 3f9a0c22
      flashsale dead-letters retry --reason unknown_sale --dry-run
    """


@dead_letters.command("list")
@choosing
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="0: all.")
@json_option
@quorum_option
def list_(choice: Choice, limit: int, as_json: bool, quorum: bool) -> int:
    """List dead letters, the oldest in the queue first.

    \b
    Examples:
      flashsale dead-letters list
      flashsale dead-letters list --sale 0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11 --limit 0
      flashsale dead-letters list --text alice --json
    """
    matching = 0
    # Printed when the letters are back in their queue: a pager may keep a command for hours.
    with TemporaryFile("w+", encoding="utf-8") as rows:

        def handle(letter: DeadLetter) -> None:
            nonlocal matching
            if choice.takes(letter):
                matching += 1
                if not limit or matching <= limit:
                    separator = ", " if as_json and matching > 1 else ""
                    rows.write(
                        separator + (json.dumps(letter.record()) if as_json else _row(letter))
                    )

        seen = _look(handle, quorum)
        if as_json:
            rows.write("]}\n")
            click.echo(f'{{"seen": {seen}, "matching": {matching}, "letters": [', nl=False)
        elif matching:
            click.echo(_HEADING)
        _copy(rows)
    if not as_json:
        shown = min(matching, limit or matching)
        rest = f"; {shown:,} shown, --limit 0 shows all" if shown < matching else ""
        click.echo(f"{matching:,} of {seen:,} dead letters match{rest}", err=True)
    return exit_codes.OK


@dead_letters.command()
@choosing
@click.option("--by-sale", is_flag=True, help="Keep the sales apart.")
@json_option
@quorum_option
def groups(choice: Choice, by_sale: bool, as_json: bool, quorum: bool) -> int:
    """Count dead letters by cause, with the first and last time of each, the largest first.

    \b
    Examples:
      flashsale dead-letters groups
      flashsale dead-letters groups --by-sale --newer 2h --json
    """
    found = Groups(by_sale)
    seen = _look(lambda letter: found.add(letter) if choice.takes(letter) else None, quorum)
    if as_json:
        records = [group.record() for group in found.largest_first()]
        click.echo(json.dumps({"seen": seen, "groups": records}))
    elif largest_first := found.largest_first():
        show_groups(largest_first)
    else:
        click.echo(f"none of {seen:,} dead letters matches", err=True)
    return exit_codes.OK


@dead_letters.command()
@click.argument("id", metavar="ID", type=Wanted())
@json_option
@quorum_option
def show(id: str, as_json: bool, quorum: bool) -> int:  # noqa: A002  # click names it so
    """Show dead letters whole: ID is an id of `list`, or its beginning.

    \b
    Examples:
      flashsale dead-letters show 3f9a0c22d1b4
      flashsale dead-letters show 3f9a0c22d1b4 --json
    """
    choice = Choice(ids=(id.lower(),))
    found: list[DeadLetter] = []

    def handle(letter: DeadLetter) -> None:
        if choice.takes(letter) and len(found) <= _MOST_SHOWN:
            found.append(letter)

    _look(handle, quorum)
    if not found:
        raise click.ClickException(f"no dead letter has an id that begins with {printable(id)}")
    if as_json:
        wholes = [
            {**letter.record(), **body_fields(letter.body), "headers": dict(letter.headers)}
            for letter in found[:_MOST_SHOWN]
        ]
        click.echo(json.dumps({"letters": wholes}, default=str))
    else:
        click.echo("\n\n".join(_whole(letter) for letter in found[:_MOST_SHOWN]))
    if len(found) > _MOST_SHOWN:
        click.echo(f"more letters begin so; these are the first {_MOST_SHOWN}", err=True)
    return exit_codes.OK


@dead_letters.command()
@id_option
@choosing
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Instead of stdout."
)
@quorum_option
def export(choice: Choice, output: Path | None, quorum: bool) -> int:
    """Write dead letters as lines of JSON. They stay in their queue.

    \b
    Examples:
      flashsale dead-letters export -o letters.jsonl
      flashsale dead-letters export --reason poison | gzip > poison.jsonl.gz
    """
    count = 0
    with TemporaryFile("w+", encoding="utf-8") as lines:

        def handle(letter: DeadLetter) -> None:
            nonlocal count
            if choice.takes(letter):
                count += 1
                lines.write(export_line(letter) + "\n")

        _look(handle, quorum)
        if output is None:
            _copy(lines)
        else:
            try:
                with output.open("w", encoding="utf-8") as stream:
                    _copy(lines, stream)
            except OSError as error:
                raise click.FileError(str(output), error.strerror) from None
    click.echo(f"{count:,} dead letters exported", err=True)
    return exit_codes.OK


@dead_letters.command("import")
@click.argument("file", type=click.File("rb"))
@json_option
def import_(file: IO[bytes], as_json: bool) -> int:
    """Put exported dead letters into the dead-letter queue, and wait for each confirm.

    A line that is no exported letter is named and left out, and the exit code is 5. A second copy
    of a letter does no harm: it can only become the same order.

    \b
    Examples:
      flashsale dead-letters import letters.jsonl
      gunzip < poison.jsonl.gz | flashsale dead-letters import -
    """
    settings = Settings.from_env()
    refused = 0

    def letters() -> Any:
        nonlocal refused
        number = 0
        while line := file.readline(_LONGEST_LINE_BYTES):
            number += 1
            if not line.strip():
                continue
            try:
                yield import_line(line, settings.dead_letter_queue)
            except BadLine as bad:
                refused += 1
                if refused <= _REFUSALS_SHOWN:
                    click.echo(f"line {number}: {bad}", err=True)

    publisher = ConfirmingPublisher(settings.broker_urls, "flashsale dead-letters import")
    try:
        with publisher, progress_bar("importing", None) as show_done:
            publisher.publish(_counted(letters(), show_done, publisher))
    finally:
        if as_json:
            click.echo(json.dumps({"imported": publisher.confirmed, "refused": refused}))
        told = f"{publisher.confirmed:,} dead letters imported and confirmed"
        click.echo(f"{told}; lines refused: {refused:,}" if refused else told, err=True)
    return exit_codes.PARTIAL if refused else exit_codes.OK


dead_letters.add_command(retry)
dead_letters.add_command(discard)

_HEADING = f"{'ID':12}  {'REASON':16}  {'DIED':20}  {'BYTES':>6}  {'SALE':36}  USER"


def _row(letter: DeadLetter) -> str:
    cause = f"{letter.reason} {letter.sqlstate}" if letter.sqlstate else letter.reason
    sale, user = printable(letter.sale_id or "-"), printable(letter.user_id or "-")
    return (
        f"{letter.short_id}  {cause:16}  {when(letter.last_seen):20}  {len(letter.body):>6}"
        f"  {sale[:36]:36}  {user[:60]}\n"
    )


def _whole(letter: DeadLetter) -> str:
    rows: dict[str, Any] = letter.record()
    lines = [
        f"{name:11}  {printable(str(value))}" for name, value in rows.items() if value is not None
    ]
    lines += [
        f"header       {printable(name)}: {printable(str(value))[:300]}"
        for name, value in letter.headers.items()
    ]
    text = letter.body[:_BODY_SHOWN].decode("utf-8", errors="backslashreplace")
    cut = " …; --json has all of it" if len(letter.body) > _BODY_SHOWN else ""
    return "\n".join([*lines, f"body         {printable(text)}{cut}"])


def _look(handle: Callable[[DeadLetter], None], quorum: bool) -> int:
    settings = Settings.from_env()
    with open_queue(settings, quorum) as queue, looking(queue) as progress:

        def each(letter: DeadLetter) -> None:
            progress(letter)
            handle(letter)

        return look(queue, each, max_event_bytes=settings.max_event_bytes)


def _copy(rows: IO[str], target: IO[str] | None = None) -> None:
    rows.seek(0)
    while part := rows.read(_COPY_CHARACTERS):
        if target is None:
            click.echo(part, nl=False)
        else:
            target.write(part)


def _counted(letters: Any, show_done: Callable[[int], None], publisher: ConfirmingPublisher) -> Any:
    letter: Outgoing
    for letter in letters:
        show_done(publisher.confirmed)
        yield letter
