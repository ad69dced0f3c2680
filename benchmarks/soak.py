"""Whether hours of a steady load leave the worker as it was: ``python -m benchmarks.soak``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from benchmarks.scenarios import report
from benchmarks.scenarios.footprint import Footprint, footprints
from benchmarks.scenarios.scene import SHARES, scene
from benchmarks.scenarios.trend import Trend, trends
from flashsale.cli.shared import progress_bar

_CATCH_UP_SECONDS = 120
_LOOKS = 180
_POLL_SECONDS = 0.5


@click.command()
@click.option(
    "--minutes", default=30.0, show_default=True, type=click.FloatRange(min=0.5),
    help="How long the load is offered.",
)  # fmt: skip
@click.option("--rate", default=2_000.0, show_default=True, help="Purchases offered a second.")
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
@report.output_option("soak")
def main(minutes: float, rate: float, processes: int, output: Path) -> None:
    """Offer a steady load for a long time and watch what the worker's processes hold.

    Of each process the memory, threads, open files and sockets are taken 180 times. Flat is what
    does not grow from the second to the last third of the time: memory by no more than 2 % of its
    median, the others not beyond the most they have been before.

    Fails where something is not flat, or where the purchases do not come to exactly one order and
    one audit row each, by the tables, the queues and the worker's own tally.

    Example: python -m benchmarks.soak --minutes 2 --output soak.json
    """
    seconds = minutes * 60
    events = int(rate * seconds)
    with scene() as play:
        with (
            progress_bar("Soaking", int(seconds)) as advance,
            play.worker(processes) as worker,
            footprints(worker, seconds / _LOOKS) as taken,
        ):
            shop, load = play.offer(rate, events)
            with load:
                while load.is_running:
                    advance(int(time.monotonic() - load.begun))
                    time.sleep(_POLL_SECONDS)
                offered = load.result()
            during: list[Footprint] = list(taken)
            play.wait_for_orders(shop, events, _CATCH_UP_SECONDS)
            latencies = play.latencies(shop, offered, first=0)
        try:
            found = trends(during)
        except ValueError as problem:
            raise click.ClickException(str(problem)) from None
        report.write(
            output,
            play.stage,
            {"minutes": minutes, "rate": rate, "processes": processes},
            events=events,
            conserved=True,
            latency_ms={
                str(share): round(ms, 2) for share, ms in zip(SHARES, latencies, strict=True)
            },
            trends=[{**trend._asdict(), "flat": trend.is_flat} for trend in found],
            columns=Footprint._fields,
            footprints=during,
        )
    click.echo(f"{events:,} purchases, each one order and one CONFIRMED audit row")
    _show(found)
    if not all(trend.is_flat for trend in found):
        raise click.ClickException("not flat: see the table")


def _show(found: list[Trend]) -> None:
    report.show(
        "What each process held",
        ("process", "of", "second third", "last third", "an hour", "flat"),
        [
            (
                each.pid,
                each.what,
                f"{each.middle:.2f}",
                f"{each.last:.2f}",
                f"{each.per_hour:+.2f}",
                "yes" if each.is_flat else "NO",
            )
            for each in found
        ],
    )


if __name__ == "__main__":
    main()
