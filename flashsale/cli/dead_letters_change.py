"""``flashsale dead-letters retry`` and ``discard``: what takes letters out of their queue."""

from __future__ import annotations

import threading
from collections.abc import Callable

import click

from flashsale import exit_codes
from flashsale.cli.dead_letters_plan import (
    Answers,
    confirmed_plan,
    edited_body,
    load_plan,
    reported,
    stopping,
    tell_stage,
    tell_wait,
)
from flashsale.cli.dead_letters_shared import (
    choosing,
    id_option,
    json_option,
    looking,
    open_queue,
    quorum_option,
)
from flashsale.cli.shared import Number, progress_bar
from flashsale.dead_letters import running
from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.holding import HeldQueue
from flashsale.dead_letters.records import Plan, Records
from flashsale.dead_letters.replaying import Caps, RunOutcome
from flashsale.dead_letters.selection import select_all, select_replayable
from flashsale.settings import Settings

_EDITABLE = ("saleId", "userId", "timestamp")

_plan_option = click.option(
    "--plan", "plan_name", metavar="PLAN", help="The very letters that an earlier run showed."
)
_expect_option = click.option(
    "--expect", type=click.IntRange(1), metavar="COUNT", help="Do not ask if there are so many."
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Show what is meant, as a plan.")


@click.command
@id_option
@choosing
@_plan_option
@_dry_run_option
@_expect_option
@click.option("--force", is_flag=True, help="Also what would be refused, or had its replays.")
@click.option("--rate", type=Number(0.01), help="Not FLASHSALE_REPLAY_RATE a second.")
@click.option("--max-failed", type=Number(0, 1), help="Not FLASHSALE_REPLAY_MAX_FAILED_SHARE.")
@click.option("--set", "keys", multiple=True, metavar="KEY=VALUE", help="Change the events so.")
@click.option("--edit", "in_editor", is_flag=True, help="Change one event in $EDITOR.")
@json_option
@quorum_option
def retry(
    choice: Choice,
    plan_name: str | None,
    dry_run: bool,
    expect: int | None,
    force: bool,
    rate: float | None,
    max_failed: float | None,
    keys: tuple[str, ...],
    in_editor: bool,
    as_json: bool,
    quorum: bool,
) -> int:
    """Send dead letters to the worker again: those that are there now, and no later ones.

    First 1, then 10, 100, 1,000 and so on, at a limited rate. After each stage it waits for the
    worker, and stops where too many failed again. A letter leaves its queue only when RabbitMQ has
    confirmed its event. A run that was stopped, or killed, goes on with its --plan.

    Left where they are: events that the worker would refuse again, and those replayed three times.
    Over 100 letters it asks, or wants a --plan or --expect.

    \b
    Examples:
      flashsale dead-letters retry --reason unknown_sale --dry-run
      flashsale dead-letters retry --plan 5b1f02ac
      flashsale dead-letters retry --id 3f9a0c22d1b4 --set userId=alice
      flashsale dead-letters retry --id 3f9a0c22d1b4 --edit
      flashsale dead-letters retry --older 1h --expect 12000 --rate 200
    """
    settings = Settings.from_env()
    edit = Edit(_pairs(keys))
    if in_editor:
        if edit.keys or plan_name:
            raise click.UsageError("--edit goes neither with --set nor with --plan")
        choice, body = edited_body(settings, choice, quorum)
        edit = Edit({}, body)
    answers = Answers(dry_run=dry_run, expect=expect, ask_over=100, as_json=as_json)
    left_out = 0
    with Records(settings.state_folder) as records:
        if plan_name:
            plan: Plan | int = load_plan(
                records, plan_name, "retry", settings, choice, edit, answers
            )
        else:
            with open_queue(settings, quorum) as queue, looking(queue) as progress:
                selection = select_replayable(
                    queue,
                    choice,
                    edit=edit,
                    records=records,
                    limit=settings.replay_limit,
                    force=force,
                    max_event_bytes=settings.max_event_bytes,
                    progress=progress,
                )
            left_out = selection.left_out
            plan = confirmed_plan("retry", selection, records, settings, edit, answers)
        if isinstance(plan, int):
            return plan
        caps = running.caps_of(settings)
        caps = Caps(
            caps.rate if rate is None else rate,
            caps.max_failed_share if max_failed is None else max_failed,
            caps.settle_seconds,
        )

        def run(
            queue: HeldQueue,
            outcome: RunOutcome,
            show: Callable[[int], None],
            stop: threading.Event,
        ) -> None:
            for target in settings.purchase_queues:
                if not queue.depth(target).consumers:
                    click.echo(
                        f"note: no worker consumes {target!r}, so nobody tells whether events fail"
                        " again",
                        err=True,
                    )
            running.replay(
                queue,
                records,
                plan,
                settings,
                outcome=outcome,
                caps=caps,
                edit=edit,
                progress=show,
                on_stage=tell_stage,
                on_wait=tell_wait,
                stop=stop,
            )

        outcome = RunOutcome(plan.letters.total(), left_out=left_out)
        return _run(plan, outcome, settings, quorum, as_json, run)


@click.command
@id_option
@choosing
@_plan_option
@_dry_run_option
@_expect_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@quorum_option
def discard(
    choice: Choice,
    plan_name: str | None,
    dry_run: bool,
    expect: int | None,
    yes: bool,
    as_json: bool,
    quorum: bool,
) -> int:
    """Remove dead letters for good: those that are there now, and no later ones.

    It asks before, unless there is a --plan, --expect or --yes. To keep them elsewhere, export
    them first.

    \b
    Examples:
      flashsale dead-letters export --reason json -o letters.jsonl
      flashsale dead-letters discard --reason json --dry-run
      flashsale dead-letters discard --plan 5b1f02ac
    """
    settings = Settings.from_env()
    ask_over = None if yes else 0
    answers = Answers(dry_run=dry_run, expect=expect, ask_over=ask_over, as_json=as_json)
    with Records(settings.state_folder) as records:
        if plan_name:
            plan: Plan | int = load_plan(
                records, plan_name, "discard", settings, choice, Edit({}), answers
            )
        else:
            with open_queue(settings, quorum) as queue, looking(queue) as progress:
                selection = select_all(
                    queue,
                    choice,
                    max_event_bytes=settings.max_event_bytes,
                    progress=progress,
                )
            plan = confirmed_plan("discard", selection, records, settings, Edit({}), answers)
        if isinstance(plan, int):
            return plan

        def run(
            queue: HeldQueue,
            outcome: RunOutcome,
            show: Callable[[int], None],
            stop: threading.Event,
        ) -> None:
            running.discard(
                queue, records, plan, settings, outcome=outcome, progress=show, stop=stop
            )

        outcome = RunOutcome(plan.letters.total())
        return _run(plan, outcome, settings, quorum, as_json, run)


def _run(
    plan: Plan,
    outcome: RunOutcome,
    settings: Settings,
    quorum: bool,
    as_json: bool,
    run: Callable[[HeldQueue, RunOutcome, Callable[[int], None], threading.Event], None],
) -> int:
    # A new connection: the one before may have idled for as long as a question was open.
    with open_queue(settings, quorum) as queue:
        if notice := queue.lock():
            click.echo(f"notice: {notice}", err=True)
        with (
            reported(plan, outcome, as_json),
            stopping() as stop,
            progress_bar(plan.what, outcome.planned) as show,
        ):
            run(queue, outcome, show, stop)
    if outcome.stopped and stop.is_set():
        return exit_codes.INTERRUPTED
    if plan.begun:
        outcome.missing = 0  # gone by the run before, as far as anybody can tell
    return exit_codes.OK if outcome.is_complete else exit_codes.PARTIAL


def _pairs(keys: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for pair in keys:
        key, equals, value = pair.partition("=")
        if not equals or key not in _EDITABLE:
            raise click.UsageError(f"--set is KEY=VALUE, with a KEY of {', '.join(_EDITABLE)}")
        pairs[key] = value
    return pairs
