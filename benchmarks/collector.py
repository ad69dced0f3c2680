"""What RabbitMQ's garbage collector costs a backlog: ``python -m benchmarks.collector``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.contestants import Contestant, load_contestants
from benchmarks.environments import NotInstallable, prepare
from benchmarks.race import Refused, Run, run
from benchmarks.scenarios import report
from benchmarks.stage import Stage
from flashsale.cli.shared import progress_bar

_WORKERS = ("flashsale", "c")
_MEGABYTE = 1e6


class Drained(NamedTuple):
    """A run, and what RabbitMQ's VM had for an argument; None where it was left as it is."""

    words: int | None
    run: Run
    #: The most resident memory that RabbitMQ had until then, in megabytes.
    rabbitmq_mb: float


@click.command()
@click.option(
    "--words", default=2_000_000, show_default=True, type=click.IntRange(100_000),
    help="The argument +hmbs of RabbitMQ's VM, in words of 8 bytes.",
)  # fmt: skip
@click.option(
    "--events", default=100_000, show_default=True, type=click.IntRange(5_000),
    help="Events in each backlog.",
)  # fmt: skip
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each."
)
@report.output_option("collector")
def main(words: int, events: int, rounds: int, output: Path) -> None:
    """Drain a backlog from a RabbitMQ as it comes, and from one that collects garbage less often.

    What waits in a classic queue is in its process's heap, and its bodies are counted towards a
    limit of their own, at which Erlang collects: with all that waits, over and over. +hmbs sets
    that limit. Each round starts the servers anew with either, and lets flashsale and the program
    in C drain one backlog each. The servers are private, with flushes on, and share this machine
    with the worker.

    Fails where a drain does not lead to exactly one order and one audit row for each event.

    Example: python -m benchmarks.collector --rounds 1 --output collector.json
    """
    workers = _ready()
    variants = (None, words)
    done: list[Drained] = []
    with progress_bar("Draining", rounds * len(variants) * len(workers)) as advance:
        for number in range(rounds):
            # In turns: who is first after a start, and which of the two a round begins with.
            for variant in variants[:: -1 if number % 2 else 1]:
                with _stage(variant) as stage:
                    for worker in workers[:: -1 if number % 2 else 1]:
                        done.append(_drain(stage, worker, events, variant))
                        advance(len(done))
    with _stage(None) as stage:
        report.write(
            output,
            stage,
            {"words": words, "events": events, "rounds": rounds},
            runs=[
                {"words": each.words, "rabbitmq_mb": each.rabbitmq_mb, **asdict(each.run)}
                for each in done
            ],
        )
    _show(done)


def _ready() -> list[Contestant]:
    known = load_contestants()
    ready = [known[name] for name in _WORKERS]
    for contestant in ready[:]:
        try:
            prepare(contestant)
        except NotInstallable as why:
            click.echo(f"without {contestant.title}: {why}", err=True)
            ready.remove(contestant)
    return ready


def _stage(words: int | None) -> Stage:
    return Stage(vm_arguments="" if words is None else f"+hmbs {words}")


def _drain(stage: Stage, worker: Contestant, events: int, words: int | None) -> Drained:
    try:
        measured = run(stage, worker, events=events)
    except Refused as why:
        raise click.ClickException(f"{worker.title}, +hmbs {words}: {why}") from None
    return Drained(words, measured, _peak_megabytes(stage.rabbitmq.pid))


def _peak_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1_024 / _MEGABYTE, 1)
    raise click.ClickException(f"/proc/{pid}/status does not tell the peak of its memory")


def _show(done: Sequence[Drained]) -> None:
    groups: dict[tuple[str, int | None], list[Drained]] = {}
    for each in done:
        groups.setdefault((each.run.contestant, each.words), []).append(each)
    report.show(
        "Medians; CPU in µs an order, RabbitMQ's memory at its peak",
        ("worker", "+hmbs", "orders/s", "worker", "PostgreSQL", "RabbitMQ", "RabbitMQ, MB"),
        [
            (
                name,
                "as it comes" if words is None else f"{words:,}",
                f"{statistics.median(each.run.orders_per_second for each in group):,.0f}",
                *(
                    f"{statistics.median(each.run.cpu_microseconds[who] for each in group):.0f}"
                    for who in ("worker", "postgresql", "rabbitmq")
                ),
                f"{max(each.rabbitmq_mb for each in group):.0f}",
            )
            for (name, words), group in groups.items()
        ],
    )


if __name__ == "__main__":
    main()
