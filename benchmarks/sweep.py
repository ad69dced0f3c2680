"""How the rate depends on the settings, one at a time: ``python -m benchmarks.sweep``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.contestants import load_contestants
from benchmarks.race import Refused, Run, run
from benchmarks.scenarios import report
from benchmarks.stage import Stage
from flashsale.cli.shared import progress_bar
from flashsale.settings import TUNABLES

_SWEPT = {
    "processes": (1, 2, 3, 4),
    "threads": (1, 2, 4, 8, 16),
    "FLASHSALE_BATCH_SIZE": (50, 100, 250, 500, 1_000, 2_000),
    "FLASHSALE_BATCHES_IN_FLIGHT": (1, 2, 3, 4),
    "FLASHSALE_PREFETCH": (1_000, 2_000, 3_000, 4_000, 8_000),
}
# Those of the command `dramatiq flashsale.actors --processes 3`, then flashsale's own.
_DEFAULTS = {"processes": 3, "threads": 8} | {
    name: tunable.default for name, tunable in TUNABLES.items() if name in _SWEPT
}


class Change(NamedTuple):
    """What is set to what, where all else has its default."""

    setting: str
    value: int

    @property
    def is_default(self) -> bool:
        return self.value == _DEFAULTS[self.setting]


@click.command()
@click.option(
    "--events",
    default=50_000,
    show_default=True,
    type=click.IntRange(min=5_000),
    help="Events in each backlog.",
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="How often each value is measured.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(_SWEPT)),
    help="Sweep this; may be given again.  [default: all]",
)
@report.output_option("sweep")
def main(events: int, rounds: int, only: tuple[str, ...], output: Path) -> None:
    """Drain a backlog with each of several values of one setting, the others at their defaults.

    Each round measures every value once, and the defaults once, so that the drift of the machine
    spreads over all. Told are medians, and their ratio to the median with the defaults. The
    servers are private, with flushes on, and share this machine with the worker.

    Fails where a drain does not lead to exactly one order and one audit row for each event.

    Example: python -m benchmarks.sweep --only processes --output sweep.json
    """
    changes = [Change(name, value) for name in only or _SWEPT for value in _SWEPT[name]]
    wanted = [None, *(change for change in changes if not change.is_default)]
    runs: dict[Change | None, list[Run]] = {change: [] for change in wanted}
    with Stage() as stage, progress_bar("Draining", rounds * len(wanted)) as advance:
        for number in range(rounds):
            for place, change in enumerate(wanted, 1):
                runs[change].append(_drain(stage, change, events))
                advance(number * len(wanted) + place)
        report.write(
            output,
            stage,
            {"events": events, "rounds": rounds, "defaults": _DEFAULTS},
            runs=[
                {**(change._asdict() if change else {"setting": None}), **asdict(each)}
                for change, those in runs.items()
                for each in those
            ],
        )
    _show(changes, runs)


def _drain(stage: Stage, change: Change | None, events: int) -> Run:
    worker = load_contestants()["flashsale"]
    processes, environment = _DEFAULTS["processes"], {}
    match change:
        case Change("processes", value):
            processes = value
        case Change("threads", value):
            worker = replace(worker, command=[*worker.command, "--threads", str(value)])
        case Change(name, value):
            environment = {name: str(value)}
    try:
        return run(stage, worker, events=events, processes=processes, environment=environment)
    except Refused as why:
        raise click.ClickException(f"{change}: {why}") from None


def _show(changes: Sequence[Change], runs: dict[Change | None, list[Run]]) -> None:
    def rate(change: Change | None) -> float:
        return statistics.median(each.orders_per_second for each in runs[change])

    rows = []
    for change in changes:
        of = None if change.is_default else change
        cost = statistics.median(sum(each.cpu_microseconds.values()) for each in runs[of])
        memory = max(each.peak_process_bytes for each in runs[of]) / 1e6
        value = f"{change.value} (default)" if change.is_default else change.value
        rows.append(
            (change.setting, value, f"{rate(of):,.0f}", f"{rate(of) / rate(None):.2f}",
             f"{cost:.0f}", f"{memory:.0f}")
        )  # fmt: skip
    report.show(
        "Orders/s by setting, medians",
        ("setting", "value", "orders/s", "to the defaults", "µs of CPU an order", "MB a process"),
        rows,
    )


if __name__ == "__main__":
    main()
