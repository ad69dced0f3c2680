"""All contestants on one backlog, in rounds: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from .chart import draw
from .contestants import Contestant, load_contestants
from .environments import NotInstallable, prepare
from .machine import machine
from .race import Refused, run
from .scenarios import report
from .stage import Stage
from .standings import GROUPS, Standing, ranking

#: Whom the ratios in the report are to.
_BASES = {"ratio_to_c": "c", "ratio_to_plain_dramatiq": "dramatiq_peewee"}
_COLUMNS = ("", "orders/s", "of C", "of plain Dramatiq", "worker", "PostgreSQL", "RabbitMQ",
            "MB, largest process", "MB, all")  # fmt: skip
_LEAST_EVENTS = 3_000
_PARTIAL = 5


@click.command()
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each."
)
@click.option(
    "--events", default=100_000, show_default=True, type=click.IntRange(_LEAST_EVENTS),
    help="Events in the backlog.",
)  # fmt: skip
@click.option(
    "--seconds", default=30, show_default=True, type=click.IntRange(3),
    help="A slow contestant's backlog is what it takes in so many seconds.",
)  # fmt: skip
@click.option("--processes", default=3, show_default=True, help="Processes of each worker.")
@click.option("--only", metavar="NAME,NAME", help="Contestants to measure.  [default: all]")
@report.output_option("drain")
def main(
    rounds: int, events: int, seconds: int, processes: int, only: str | None, output: Path
) -> None:
    """Let every contestant drain a backlog of purchases, and compare.

    Each round is one run of each contestant, on a fresh database and queue, in an order that
    changes from round to round; ratios are those within a round. A rate is that of events with
    both their rows committed, by PostgreSQL's record of commit times, and CPU is that used
    meanwhile: from a tenth of the backlog on until its last hundredth. A run that does not end
    with exactly one order and one CONFIRMED audit row for each event counts for nothing.

    The servers are private, with their disks' flushes on, and share this machine with the worker.

    The chart goes beside the JSON file, as .svg.

    Exit codes: 0 all is measured, 1 nothing is, 2 usage, 5 something is missing.

    Example: python -m benchmarks --only flashsale,c --rounds 5
    """
    chosen = _chosen(only)
    standings = {each.name: Standing(each) for each in chosen}
    ready = _prepared(chosen, standings)
    with Stage() as stage:
        for number, contestant in _plan(ready, rounds):
            backlog = backlog_of(contestant, events, seconds)
            _measure(stage, contestant, standings[contestant.name], number, backlog, processes)
        order = ranking(standings)
        unmeasured = [each for each in standings.values() if not each.runs]
        report.write(
            output,
            stage,
            {"rounds": rounds, "events": events, "seconds": seconds, "processes": processes},
            contestants=[each.as_json(standings, _BASES) for each in [*order, *unmeasured]],
        )
    title = f"Draining a backlog of {events:,} purchases with {processes} processes"
    chart = output.with_suffix(".svg")
    chart.write_text(draw(order, title, f"{_where()}. Bars are medians, lines are ranges."))
    click.echo(f"written to {chart}", err=True)
    _show(order, standings)
    missing = any(each.refusals for each in standings.values())
    sys.exit(1 if not order else _PARTIAL if missing else 0)


def backlog_of(contestant: Contestant, events: int, seconds: int) -> int:
    """How many events a contestant is given: all, or what it takes in so many seconds."""
    if contestant.pace is None:
        return events
    return max(_LEAST_EVENTS, min(events, round(contestant.pace * seconds, -3)))


def _where() -> str:
    here = machine()
    day = datetime.now(UTC).strftime("%d %B %Y")
    return f"{here['cpus']} CPUs ({here['processor']}), servers included; {day}"


def _chosen(only: str | None) -> list[Contestant]:
    known = load_contestants()
    names = only.split(",") if only else list(known)
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(
            f"no contestant is named {', '.join(unknown)}; there are {', '.join(known)}",
            param_hint="--only",
        )
    return [known[name] for name in names]


def _prepared(
    contestants: Sequence[Contestant], standings: dict[str, Standing]
) -> list[Contestant]:
    ready = []
    for contestant in contestants:
        try:
            prepare(contestant)
        except NotInstallable as why:
            click.echo(f"{contestant.name}: {why}", err=True)
            standings[contestant.name].refusals[0] = str(why)
        else:
            ready.append(contestant)
    return ready


def _plan(contestants: Sequence[Contestant], rounds: int) -> Iterator[tuple[int, Contestant]]:
    # Turned by one each round, so that nobody always runs behind the same.
    total = rounds * len(contestants)
    for step in range(total):
        number, place = divmod(step, len(contestants))
        contestant = contestants[(place + number) % len(contestants)]
        click.echo(
            f"[{step + 1}/{total}] round {number + 1}, {contestant.name}: ", nl=False, err=True
        )
        yield number + 1, contestant


def _measure(
    stage: Stage, contestant: Contestant, standing: Standing, number: int, events: int,
    processes: int,
) -> None:  # fmt: skip
    try:
        measured = run(stage, contestant, events=events, processes=processes)
    except Refused as why:
        standing.refusals[number] = str(why)
        click.echo(f"refused: {why}", err=True)
    else:
        standing.runs[number] = measured
        click.echo(f"{measured.orders_per_second:,.0f} orders/s", err=True)


def _show(order: Sequence[Standing], standings: dict[str, Standing]) -> None:
    rows = []
    for each in order:
        ratios = (each.ratio_to(standings.get(base)) for base in _BASES.values())
        rate = each.orders_per_second
        rows.append(
            (
                each.contestant.title,
                f"{rate.median:,.0f} ({rate.low:,.0f} to {rate.high:,.0f})",
                *(f"{r.median:.2f} ({r.low:.2f} to {r.high:.2f})" if r else "" for r in ratios),
                *(f"{each.cpu_microseconds(group) / 1_000:.3f}" for group in GROUPS),
                f"{each.peak_process_bytes / 1e6:.0f}",
                f"{each.peak_total_bytes / 1e6:.0f}",
            )
        )
    report.show("Medians (and ranges); CPU in seconds per 1,000 orders", _COLUMNS, rows)
    for each in standings.values():
        for number, why in each.refusals.items():
            click.echo(f"{each.contestant.name}, round {number}, does not count: {why}", err=True)


if __name__ == "__main__":
    main()
