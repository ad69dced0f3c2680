"""How fast one contestant turns a backlog into orders: ``python -m benchmarks.drain``."""

from __future__ import annotations

import os

import click

from .contestants import load_contestants
from .environments import prepare
from .race import Refused, run
from .stage import Stage


@click.command()
@click.option(
    "--events",
    default=100_000,
    show_default=True,
    type=click.IntRange(min=5_000),
    help="Events in the backlog.",
)
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
@click.option(
    "--contestant",
    "name",
    default="flashsale",
    show_default=True,
    type=click.Choice(list(load_contestants())),
    help="Who drains it.",
)
def main(events: int, processes: int, name: str) -> None:
    """Publish a backlog, start a worker, and measure how fast it is drained, once.

    The rate is that of events with both rows committed, by PostgreSQL's own record of commit
    times, and CPU is that used meanwhile: from a tenth of the backlog on, so that the start of
    the processes is not in it, until its last hundredth. The servers are private, with their
    disks' flushes on, and share this machine with the worker.

    Fails where the drain does not lead to exactly one order and one audit row for each event.
    """
    click.echo(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}", err=True)
    contestant = load_contestants()[name]
    prepare(contestant)
    with Stage() as stage:
        try:
            measured = run(stage, contestant, events=events, processes=processes)
        except Refused as why:
            raise click.ClickException(str(why)) from None
    click.echo(f"events         {events}, each one order and one audit row")
    click.echo(f"processes      {processes}")
    click.echo(f"orders/s       {measured.orders_per_second:.0f}")
    for group, microseconds in sorted(measured.cpu_microseconds.items()):
        click.echo(f"{f'CPU {group}':<14} {microseconds:.1f} µs an event")
    click.echo(f"memory         {measured.peak_process_bytes / 1e6:.0f} MB, the largest process")


if __name__ == "__main__":
    main()
