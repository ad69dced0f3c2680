"""How soon the backlog of a database outage is gone: ``python -m benchmarks.outage``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.scenarios import report
from benchmarks.scenarios.backlog import Recovery, recovery
from benchmarks.scenarios.footprint import footprints, largest
from benchmarks.scenarios.load import Load
from benchmarks.scenarios.scene import scene
from flashsale.cli.shared import progress_bar

_BEFORE_SECONDS = 15.0
_AFTER_SECONDS = 60.0
_CATCH_UP_SECONDS = 120
_LOOK_SECONDS = 0.5


@click.command()
@click.option("--rate", default=2_000.0, show_default=True, help="Purchases offered a second.")
@click.option("--outage", default=60.0, show_default=True, help="Seconds without the database.")
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
@report.output_option("outage")
def main(rate: float, outage: float, processes: int, output: Path) -> None:
    """Stop the database for a while under load, and measure how soon the worker has caught up.

    Purchases are offered at a steady rate from a process of its own, before, during and after the
    outage. The database is stopped as its administrator would, and started again. From when it
    accepts connections again, the time is taken until the first commit, and until fewer purchases
    wait than half a second brings. The servers are private, with flushes on, and share this
    machine with the worker and the load.

    Fails where the purchases do not come to exactly one order and one audit row each.

    Example: python -m benchmarks.outage --outage 20 --output outage.json
    """
    seconds = _BEFORE_SECONDS + outage + _AFTER_SECONDS
    events = int(rate * seconds)
    with scene() as play:
        with (
            progress_bar("Under load", int(seconds)) as advance,
            play.worker(processes) as worker,
            footprints(worker, _LOOK_SECONDS) as taken,
        ):
            shop, load = play.offer(rate, events)
            with load:
                _wait_until(load, _BEFORE_SECONDS, advance)
                play.stage.postgres.stop()
                _wait_until(load, _BEFORE_SECONDS + outage, advance)
                play.stage.postgres.start()
                back_at = time.time()
                _wait_until(load, seconds, advance)
                offered = load.result()
            play.wait_for_orders(shop, events, _CATCH_UP_SECONDS)
            found = recovery(offered, play.commits(shop), back_at)
        report.write(
            output,
            play.stage,
            {"rate": rate, "outage_seconds": outage, "processes": processes},
            recovery=found._asdict(),
            peak=largest(taken),
        )
    _show(found, largest(taken))


def _wait_until(load: Load, seconds: float, advance: Callable[[int], None]) -> None:
    while (elapsed := time.monotonic() - load.begun) < seconds and load.is_running:
        advance(int(elapsed))
        time.sleep(min(_LOOK_SECONDS, seconds - elapsed))


def _show(found: Recovery, peak: dict[str, float]) -> None:
    report.show(
        "After the outage",
        ("backlog", "first commit", "caught up", "orders/s meanwhile", "largest process"),
        [
            (
                f"{found.backlog:,}",
                f"{found.first_commit_seconds:.1f} s",
                f"{found.caught_up_seconds:.1f} s",
                f"{found.orders_per_second:,.0f}",
                f"{peak['rss_mb']:.0f} MB",
            )
        ],
    )


if __name__ == "__main__":
    main()
