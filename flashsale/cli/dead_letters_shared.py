"""What the commands on dead letters have alike: which letters are meant, and how they look."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from flashsale.cli.shared import progress_bar
from flashsale.dead_letters.choice import Choice, parse_age
from flashsale.dead_letters.groups import Group
from flashsale.dead_letters.holding import HeldQueue
from flashsale.dead_letters.letter import DeadLetter
from flashsale.purchases import Reason
from flashsale.redaction import printable
from flashsale.settings import Settings

_SHOWN_EVERY = 200

F = TypeVar("F", bound=Callable[..., Any])


class Age(click.ParamType):  # type: ignore[type-arg]  # generic in recent versions only
    """An option's value such as 15m; gives the command a timedelta."""

    name = "AGE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        try:
            return value if isinstance(value, timedelta) else parse_age(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class Wanted(click.ParamType):  # type: ignore[type-arg]
    """What is looked for: not nothing, which a variable of a shell that is not set would give."""

    name = "TEXT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.strip():
            self.fail("it is empty, and would mean every letter", param, ctx)
        return value


def _reasons_of_ours(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    return [reason.value for reason in Reason if reason.value.startswith(begun)]


def _note_misspelt(
    _: click.Context, __: click.Parameter, reasons: tuple[str, ...]
) -> tuple[str, ...]:
    # A note only: letters of other programs have reasons of their own.
    ours = [reason.value for reason in Reason]
    for reason in reasons:
        close = difflib.get_close_matches(reason, ours, n=1, cutoff=0.75)
        if close and reason not in ours:
            click.echo(f"note: {reason!r} is no reason of ours; is it {close[0]}?", err=True)
    return reasons


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
quorum_option = click.option(
    "--quorum", is_flag=True, help="Look also at a quorum queue, which counts each look."
)
id_option = click.option(
    "--id",
    "ids",
    type=Wanted(),
    multiple=True,
    metavar="ID",
    help="An id of `list`, or its beginning.",
)


def choosing(command: F) -> F:
    """The options that say which letters are meant; the command gets them as one `choice`."""

    @functools.wraps(command)
    def with_choice(
        *args: Any,
        reasons: tuple[str, ...],
        sale: str | None,
        user: str | None,
        older: timedelta | None,
        newer: timedelta | None,
        text: str | None,
        ids: tuple[str, ...] = (),
        **others: Any,
    ) -> Any:
        now = datetime.now(UTC)
        try:
            choice = Choice(
                ids=tuple(each.lower() for each in ids),
                reasons=reasons,
                sale_id=sale,
                user_id=user,
                died_before=now - older if older is not None else None,
                died_after=now - newer if newer is not None else None,
                text=text,
            )
        except OverflowError:
            raise click.UsageError("--older and --newer reach back too far") from None
        return command(*args, choice=choice, **others)

    for option in reversed(
        (
            click.option(
                "--reason",
                "reasons",
                multiple=True,
                callback=_note_misspelt,
                shell_complete=_reasons_of_ours,
                help="May be given several times.",
            ),
            click.option("--sale", metavar="UUID", help="Of this sale."),
            click.option("--user", metavar="ID", help="Of this shopper."),
            click.option("--older", type=Age(), help="Died longer ago: 90s, 15m, 2h, 3d."),
            click.option("--newer", type=Age(), help="Died less long ago."),
            click.option("--text", type=Wanted(), help="In body or headers, in any case."),
        )
    ):
        with_choice = option(with_choice)
    return with_choice  # type: ignore[return-value]  # click calls it with what the options give


@contextmanager
def open_queue(settings: Settings, quorum: bool) -> Iterator[HeldQueue]:
    """The dead-letter queue of the settings."""
    with HeldQueue(
        settings.broker_urls,
        settings.dead_letter_queue,
        "flashsale dead-letters",
        allow_quorum=quorum,
    ) as queue:
        yield queue


@contextmanager
def looking(queue: HeldQueue) -> Iterator[Callable[[DeadLetter], None]]:
    """A progress bar for one look. Yields what to call with each letter."""
    depth = queue.depth()
    if depth.consumers:
        click.echo(
            f"note: {queue.queue!r} has {depth.consumers} consumers; what they hold is not seen",
            err=True,
        )
    seen = 0
    with progress_bar("looking", depth.ready) as show:

        def each(_: DeadLetter) -> None:
            nonlocal seen
            seen += 1
            if seen % _SHOWN_EVERY == 0:
                show(seen)

        yield each


def show_groups(groups: Sequence[Group], *, err: bool = False) -> None:
    """The groups as a table."""
    click.echo(
        f"{'COUNT':>9}  {'REASON':16}  {'FIRST SEEN':20}  {'LAST SEEN':20}  EXAMPLE", err=err
    )
    for group in groups:
        cause = f"{group.reason} {group.sqlstate}" if group.sqlstate else group.reason
        times = f"{when(group.first_seen):20}  {when(group.last_seen):20}"
        sale = f"  sale {printable(group.sale_id)[:36]}" if group.sale_id else ""
        click.echo(f"{group.count:>9,}  {cause:16}  {times}  {group.example}{sale}", err=err)


def when(time: datetime | None) -> str:
    """A time as the tables have it, to the second, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ") if time else "-"
