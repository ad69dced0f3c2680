"""From what was found to what is done: shown, agreed to, and told."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from flashsale import exit_codes
from flashsale.cli.dead_letters_shared import looking, open_queue, show_groups
from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.records import Plan, Records
from flashsale.dead_letters.replaying import RunOutcome
from flashsale.dead_letters.selection import Selection, look
from flashsale.settings import Settings


class Answers(NamedTuple):
    """What was said beforehand. Over `ask_over` letters it asks; None never asks."""

    dry_run: bool
    expect: int | None
    ask_over: int | None
    as_json: bool


def load_plan(
    records: Records,
    name: str,
    what: str,
    settings: Settings,
    choice: Choice,
    edit: Edit,
    answers: Answers,
) -> Plan:
    """The letters of an earlier run; what they are is settled, so nothing else may say it."""
    if choice != Choice() or answers.dry_run or answers.expect is not None:
        raise click.UsageError("--plan says which letters; leave out what else would")
    plan = records.load_plan(name)
    if (plan.what, plan.queue) != (what, settings.dead_letter_queue):
        raise click.UsageError(f"plan {name} is to {plan.what} letters of queue {plan.queue!r}")
    if plan.edit != edit.fingerprint:
        raise click.UsageError("the plan was made with another --set; give the same again")
    return plan


def confirmed_plan(
    what: str,
    selection: Selection,
    records: Records,
    settings: Settings,
    edit: Edit,
    answers: Answers,
) -> Plan | int:
    """Show what was found and have it agreed to; an exit code where it ends here."""
    count = selection.letters.total()
    _tell(what, selection, settings)
    if answers.expect is not None and answers.expect != count:
        raise click.ClickException(
            f"it is {count:,} dead letters, not {answers.expect:,}; nothing was changed"
        )
    if not count:
        if answers.as_json:
            click.echo(json.dumps(_found(None, selection)))
        return exit_codes.PARTIAL if selection.left_out and not answers.dry_run else exit_codes.OK
    plan = records.save_plan(
        what,
        settings.dead_letter_queue,
        selection.letters,
        largest_bytes=selection.largest_bytes,
        edit=edit.fingerprint,
    )
    if answers.dry_run:
        if answers.as_json:
            click.echo(json.dumps(_found(plan, selection)))
        click.echo(f"nothing was changed; to {what} these: {_command(plan)}", err=True)
        return exit_codes.OK
    if answers.expect is None and answers.ask_over is not None and count > answers.ask_over:
        _ask(what, count)
    return plan


def edited_body(settings: Settings, choice: Choice, quorum: bool) -> tuple[Choice, bytes]:
    """The one letter of the choice, and its body as the operator leaves it in $EDITOR.

    The letter is named by its id: of those that die while the editor is open, none is meant.
    """
    found: list[DeadLetter] = []

    def handle(letter: DeadLetter) -> None:
        progress(letter)
        if choice.takes(letter) and len(found) <= 1:
            found.append(letter)

    with open_queue(settings, quorum) as queue, looking(queue) as progress:
        look(queue, handle, max_event_bytes=settings.max_event_bytes)
    if len(found) != 1:
        raise click.UsageError("--edit is for one letter; name it by --id")
    try:
        text = found[0].body.decode()
    except UnicodeDecodeError:
        raise click.ClickException("the body is no text that could be edited") from None
    edited = click.edit(text, extension=".json")
    if edited is None:
        raise click.ClickException("the editor left it as it is; nothing was changed")
    return Choice(ids=(found[0].id,)), edited.strip().encode(errors="surrogatepass")


def tell_stage(sent: int, failed: int) -> None:
    """One line for each stage of a replay."""
    click.echo(f"{sent:,} sent, {failed:,} failed again", err=True)


def tell_wait(before: int) -> None:
    """One line now and then, while the worker has not come to a stage."""
    click.echo(f"waiting for the worker, which has {before:,} purchases to take first", err=True)


@contextmanager
def reported(plan: Plan, outcome: RunOutcome, as_json: bool) -> Iterator[None]:
    """Tell how it ended, also where an error passes by: what is done, is."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if as_json:
            click.echo(json.dumps({"plan": plan.name, **outcome.record()}))
        told = f"{outcome.done:,} of {outcome.planned:,} dead letters {_past(plan.what)}"
        if outcome.failed_again:
            told += f"; failed again: {outcome.failed_again:,}"
        if outcome.missing:
            told += f"; not in the queue any more, or held by others: {outcome.missing:,}"
        if outcome.stopped:
            told += f"; stopped: {outcome.stopped}"
        click.echo(told, err=True)
        if failed or outcome.stopped:
            click.echo(f"the rest is where it was; go on with: {_command(plan)}", err=True)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for the run to end in order; a second one is obeyed."""
    stop = threading.Event()

    def ask(_number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(what: str, selection: Selection, settings: Settings) -> None:
    count = selection.letters.total()
    click.echo(f"{count:,} of {selection.seen:,} dead letters to {what}", err=True)
    if count:
        show_groups(selection.groups.largest_first(), err=True)
    if selection.refused:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in selection.refused.most_common())
        click.echo(
            f"left out, the worker would refuse them: {reasons}; --set or --edit mends them,"
            " --force sends them as they are",
            err=True,
        )
    if selection.exhausted:
        click.echo(
            f"left out, replayed {settings.replay_limit} times already: {selection.exhausted:,};"
            " --force replays them all the same",
            err=True,
        )


def _found(plan: Plan | None, selection: Selection) -> dict[str, Any]:
    return {
        "plan": plan.name if plan else None,
        "planned": selection.letters.total(),
        "seen": selection.seen,
        "refused": dict(selection.refused),
        "exhausted": selection.exhausted,
        "groups": [group.record() for group in selection.groups.largest_first()],
    }


def _ask(what: str, count: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"to {what} {count:,} dead letters, see them first with --dry-run and run its plan, or"
            f" give --expect {count}"
        )
    if click.prompt(f"Type {count} to {what} them", err=True) != str(count):
        raise click.ClickException("nothing was changed")


def _command(plan: Plan) -> str:
    again = " and the same --set" if plan.edit else ""
    return f"flashsale dead-letters {plan.what} --plan {plan.name}{again}"


def _past(what: str) -> str:
    return {"retry": "replayed", "discard": "discarded"}[what]
