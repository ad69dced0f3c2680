"""How soon a purchase is an order, by the rate of purchases: ``python -m benchmarks.latency``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import click

from benchmarks.scenarios import curve, report
from benchmarks.scenarios.scene import Scene, scene
from flashsale.cli.shared import progress_bar

# From a lone purchase now and then to more than two cores can give.
_RATES = (20, 500, 1_000, 2_000, 3_500, 5_000, 7_000, 10_000, 14_000)
# Until then pages, caches and collectors are cold.
_WARM_UP_SECONDS = 5.0
_CATCH_UP_SECONDS = 60
# Behind by so much at the median: the purchases of a second do not fit into a second.
_SATURATED_MS = 1_000


@dataclass(frozen=True)
class Point:
    """Latencies at one rate, in milliseconds, and what the load itself took."""

    rate: float
    events: int
    p50: float
    p90: float
    p99: float
    p999: float
    slowest: float
    #: Mean time of a flush of PostgreSQL's log; it is in all of the above.
    flush: float
    #: The most that a purchase left after it was due; it is in the above, too.
    load_latest: float
    #: CPU seconds that the load took of each second.
    load_cpu: float

    @property
    def saturated(self) -> bool:
        return self.p50 > _SATURATED_MS


@click.command()
@click.option(
    "--rate", "rates", multiple=True, type=click.FloatRange(min=1), metavar="EVENTS/S",
    help="A rate to offer; may be given again.  [default: 20 to 14,000]",
)  # fmt: skip
@click.option(
    "--seconds", default=25.0, show_default=True, type=click.FloatRange(min=10, max=60),
    help="How long each rate is offered.",
)  # fmt: skip
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
@report.output_option("latency")
def main(rates: tuple[float, ...], seconds: float, processes: int, output: Path) -> None:
    """Offer purchases at steady rates and measure the time until each is committed.

    The load comes from a process of its own, on a schedule of its own: purchase n is due at
    n / rate, whatever became of those before it, and its latency counts from then on. It ends
    with the commit as PostgreSQL records it, which is just before the flush of its log; the mean
    time of a flush is added. The first 5 seconds are not counted. The servers are private, with
    flushes on, and share this machine with the worker and the load.

    The chart goes beside the JSON file, as .svg.

    After a rate that the worker cannot keep up with, no higher one is tried. Fails where the
    purchases do not come to exactly one order and one audit row each.

    Example: python -m benchmarks.latency --rate 2000 --output latency.json
    """
    points: list[Point] = []
    wanted = sorted(rates or _RATES)
    with scene() as play, progress_bar("Offering", len(wanted)) as advance:
        with play.worker(processes):
            for rate in wanted:
                points.append(_measure(play, rate, seconds))
                advance(len(points))
                if points[-1].saturated:
                    break
        report.write(
            output,
            play.stage,
            {"seconds": seconds, "processes": processes},
            points=[{**asdict(point), "saturated": point.saturated} for point in points],
        )
    chart = output.with_suffix(".svg")
    curve.draw(
        chart,
        [point.rate for point in points],
        {
            title: [getattr(point, name) for point in points]
            for title, name in (("half of them", "p50"), ("99 %", "p99"), ("99.9 %", "p999"))
        },
    )
    click.echo(f"written to {chart}", err=True)
    report.show(
        "Latency from due to committed, ms",
        ("offered/s", "p50", "p90", "p99", "p99.9", "slowest", "flush", "load: latest", "CPU"),
        [
            (
                f"{each.rate:,.0f}{' (saturated)' if each.saturated else ''}",
                *(
                    f"{value:.1f}"
                    for value in (each.p50, each.p90, each.p99, each.p999, each.slowest)
                ),
                f"{each.flush:.2f}",
                f"{each.load_latest:.1f}",
                f"{each.load_cpu:.0%}",
            )
            for each in points
        ],
    )


def _measure(play: Scene, rate: float, seconds: float) -> Point:
    events = int(rate * seconds)
    flushes, flushing = play.flushes()
    shop, load = play.offer(rate, events)
    with load:
        offered = load.result()
    play.wait_for_orders(shop, events, _CATCH_UP_SECONDS)
    flushes_after, flushing_after = play.flushes()
    flush = (flushing_after - flushing) / (flushes_after - flushes)
    latencies = play.latencies(shop, offered, first=int(rate * _WARM_UP_SECONDS))
    p50, p90, p99, p999, slowest = (round(each + flush, 2) for each in latencies)
    return Point(
        rate=rate,
        events=events,
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        slowest=slowest,
        flush=round(flush, 2),
        load_latest=round(offered.latest_seconds * 1_000, 2),
        load_cpu=round(offered.cpu_seconds / (offered.ended_at - offered.started_at), 3),
    )


if __name__ == "__main__":
    main()
