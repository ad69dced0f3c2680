"""Whether the pace falls with what the table and the queue hold: ``python -m benchmarks.decay``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.contestants import load_contestants
from benchmarks.environments import NotInstallable, prepare
from benchmarks.race import CLOCK, Refused, run
from benchmarks.scenarios import report
from benchmarks.scenarios.filling import fill
from benchmarks.scenarios.footprint import footprints, largest
from benchmarks.scenarios.load import publish_backlog
from benchmarks.scenarios.scene import Scene, scene
from flashsale.cli.shared import progress_bar

_EMPTY, _FILLED = "flashsale", "filled"
_FLASHSALE, _YARDSTICK = "flashsale", "c"
# A server that holds ten million orders has memory for their indexes.
_SETTINGS = {"shared_buffers": "2GB", "max_wal_size": "4GB"}
_LEAST_PACE = 2_000
_LOOK_SECONDS = 0.5
_PLAIN, _FULL_TABLE, _LONG_QUEUE = "empty table", "full table", "long queue"


class Drain(NamedTuple):
    """One backlog drained; memory is that of the largest process, in megabytes."""

    worker: str
    case: str
    orders_per_second: float
    rss_mb: float
    pss_mb: float | None


@click.command()
@click.option(
    "--orders", default=10_000_000, show_default=True, type=click.IntRange(min=100_000),
    help="Orders in the full table.",
)  # fmt: skip
@click.option(
    "--events", default=100_000, show_default=True, type=click.IntRange(min=20_000),
    help="Events in a short backlog; a long one has ten times as many.",
)  # fmt: skip
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(min=1),
    help="How often each is measured.",
)  # fmt: skip
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
@report.output_option("decay")
def main(orders: int, events: int, rounds: int, processes: int, output: Path) -> None:
    """Drain backlogs with few and many orders in the table, and short and long ones.

    Each round drains a short backlog into empty tables, a short one into tables that hold the
    orders of many past sales with their audit rows, and a long one into empty tables. The program
    in C drains the short and the long one, too: the tables grow under whoever fills them. A rate is
    that of events with both rows committed, from a tenth of the backlog on until its last
    hundredth; ratios are those within a round. The worker starts when the backlog is there, and
    so its first search for orders without an audit row is in it. The servers are private, with
    flushes on, 2 GB of shared buffers, and share this machine with the worker.

    Fails where a drain does not lead to exactly one order and one audit row for each event.

    Example: python -m benchmarks.decay --orders 1000000 --rounds 1 --output decay.json
    """
    drains: list[list[Drain]] = []
    has_yardstick = _is_yardstick_here()
    with scene(_SETTINGS) as play:
        play.stage.postgres.create_database(_FILLED)
        with progress_bar("Filling the table", orders) as advance:
            fill(play.shop(_FILLED), orders, advance)
        with progress_bar("Draining", rounds) as advance:
            for number in range(rounds):
                drains.append(_round(play, events, processes))
                if has_yardstick:
                    drains[number] += _yardstick_round(play, events, processes)
                advance(number + 1)
        report.write(
            output,
            play.stage,
            {
                "orders": orders, "events": events, "rounds": rounds, "processes": processes,
                "postgresql": _SETTINGS,
            },
            ratios=[
                {"worker": drain.worker, "case": drain.case, "ratio": _ratio(drains, place)}
                for place, drain in enumerate(drains[0])
            ],
            drains=[[drain._asdict() for drain in of_round] for of_round in drains],
        )  # fmt: skip
    _show(drains)


def _round(play: Scene, events: int, processes: int) -> list[Drain]:
    return [
        _drain(play, _PLAIN, _EMPTY, events, processes),
        _drain(play, _FULL_TABLE, _FILLED, events, processes),
        _drain(play, _LONG_QUEUE, _EMPTY, 10 * events, processes),
    ]


def _drain(play: Scene, case: str, database: str, events: int, processes: int) -> Drain:
    empty = play.stage.fresh_shop()  # it makes the queue, too
    if database == _EMPTY:
        shop = empty
        play.expect(shop, events)
    else:
        shop = play.open_sale(events, database)
    publish_backlog(shop.broker_url, shop.purchase_queue, shop.sale_id, events)
    shop.query("CHECKPOINT")
    with (
        play.worker(processes, database) as worker,
        footprints(worker, _LOOK_SECONDS) as taken,
    ):
        play.wait_for_orders(shop, events, 60 + events / _LEAST_PACE)
    ((counted, start, finish, _),) = shop.query(CLOCK, shop.sale_id)
    return Drain(_FLASHSALE, case, round(counted / (finish - start)), **largest(taken))


def _is_yardstick_here() -> bool:
    try:
        prepare(load_contestants()[_YARDSTICK])
    except NotInstallable as why:
        click.echo(f"without the program in C, which could not be built: {why}", err=True)
        return False
    return True


def _yardstick_round(play: Scene, events: int, processes: int) -> list[Drain]:
    yardstick = load_contestants()[_YARDSTICK]
    drains = []
    for case, backlog in ((_PLAIN, events), (_LONG_QUEUE, 10 * events)):
        try:
            done = run(play.stage, yardstick, events=backlog, processes=processes)
        except Refused as why:
            raise click.ClickException(f"{yardstick.title}: {why}") from None
        megabytes = round(done.peak_process_bytes / 1e6, 1)
        drains.append(Drain(_YARDSTICK, case, round(done.orders_per_second), megabytes, None))
    return drains


def _ratio(drains: Sequence[Sequence[Drain]], place: int) -> float:
    """The median of the ratios to the same worker's first drain of the same round."""
    ratios = []
    for of_round in drains:
        drain = of_round[place]
        first = next(each for each in of_round if each.worker == drain.worker)
        ratios.append(drain.orders_per_second / first.orders_per_second)
    return round(statistics.median(ratios), 3)


def _show(drains: Sequence[Sequence[Drain]]) -> None:
    rows = []
    for place, (first, *others) in enumerate(zip(*drains, strict=True)):
        rate = statistics.median(each.orders_per_second for each in (first, *others))
        rss = max(each.rss_mb for each in (first, *others))
        rows.append(
            (first.worker, first.case, f"{rate:,.0f}", f"{_ratio(drains, place):.2f}", f"{rss:.0f}")
        )
    report.show(
        "Medians; memory of the largest process",
        ("worker", "case", "orders/s", "to its first", "RSS, MB"),
        rows,
    )


if __name__ == "__main__":
    main()
