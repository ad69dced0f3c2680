"""How fast a backlog becomes orders: ``python -m benchmarks.drain``."""

from __future__ import annotations

import os
import time

import click

from tests.support.postgres import PrivatePostgres
from tests.support.processes import cpu_seconds
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.workers import RunningWorker

_POLL_SECONDS = 0.25
_TIMEOUT_SECONDS = 600
_EXIT_SECONDS = 10

# The first commit's orders started the clock, so they do not count.
_SPAN = """
WITH times AS (SELECT pg_xact_commit_timestamp(xmin) AS committed_at FROM orders),
     start AS (SELECT min(committed_at) AS at FROM times)
SELECT count(*) FILTER (WHERE committed_at > start.at),
       extract(epoch FROM max(committed_at) - start.at)::float
FROM times, start GROUP BY start.at
"""


@click.command()
@click.option(
    "--events",
    default=100_000,
    show_default=True,
    type=click.IntRange(min=5_000),
    help="Events in the backlog.",
)
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
def main(events: int, processes: int) -> None:
    """Publish a backlog, start the worker, and measure how fast it is drained.

    The rate is that between the worker's first and last commit of orders, by PostgreSQL's own
    record of commit times: the start of the processes is not in it. The CPU seconds are those
    used from before the worker's start until all orders are there, by each of the three. Their
    servers are private, with their disks' flushes on, and share this machine with the worker.

    Fails where the drain does not lead to exactly one order and one audit row for each event.
    """
    click.echo(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}", err=True)
    with (
        PrivatePostgres({"track_commit_timestamp": "on"}) as postgres,
        PrivateRabbitMQ() as rabbitmq,
    ):
        shop = Shop(postgres.url(), rabbitmq.url(), "purchase", "purchase.XQ")
        shop.make_tables()
        shop.open_sale()
        users = [f"buyer-{number}" for number in range(events)]
        shop.buy(users)

        servers = {"postgres": postgres.pid, "rabbitmq": rabbitmq.pid}
        before = {name: cpu_seconds(pid) for name, pid in servers.items()}
        with RunningWorker(shop.environment(), processes=processes) as worker:
            _wait_for_orders(shop, events)
            used = {name: cpu_seconds(pid) - before[name] for name, pid in servers.items()}
            used["worker"] = cpu_seconds(worker.pid)
            worker.terminate()
            exit_code = worker.wait(_EXIT_SECONDS)
        if exit_code:
            raise click.ClickException(f"the worker ended with exit code {exit_code}")
        shop.assert_settled(users)
        ((counted, seconds),) = shop.query(_SPAN)

    click.echo(f"events         {events}, each one order and one audit row")
    click.echo(f"processes      {processes}")
    click.echo(f"orders/s       {counted / seconds:.0f}")
    for name, cpu in sorted(used.items()):
        click.echo(f"{f'CPU {name}':<14} {cpu:.2f} s, {cpu / events * 1e6:.0f} µs an event")


def _wait_for_orders(shop: Shop, count: int) -> None:
    # Seldom, since each look scans the table.
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (found := shop.order_count()) < count:
        if time.monotonic() > deadline:
            raise click.ClickException(f"{found} of {count} orders after {_TIMEOUT_SECONDS} s")
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
