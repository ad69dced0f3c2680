"""How soon a lone purchase is an order: ``python -m benchmarks.latency``."""

from __future__ import annotations

import os
import select
import statistics
import time
from typing import Any

import click
import psycopg2
from pika import BasicProperties
from pika.spec import PERSISTENT_DELIVERY_MODE

from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.workers import RunningWorker

_START_SECONDS = 15
_ANSWER_SECONDS = 5
_EXIT_SECONDS = 10
# PostgreSQL sends a notification after the commit of the transaction it belongs to.
_NOTIFY = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NOTIFY committed; RETURN NULL; END';
CREATE TRIGGER tell AFTER INSERT ON orders EXECUTE FUNCTION tell();
"""


@click.command()
@click.option(
    "--events",
    default=300,
    show_default=True,
    type=click.IntRange(min=2),
    help="Events to measure.",
)
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
@click.option(
    "--pause", default=0.05, show_default=True, help="Seconds from one commit to the next event."
)
def main(events: int, processes: int, pause: float) -> None:
    """Publish one event at a time to an idle worker and measure until its order is committed.

    The time is that from before the publish until PostgreSQL's notification of the commit has
    arrived here, so it holds two ways that no shopper waits for; by this process's clock alone.
    The first ten events, which find everything cold, are not counted. The servers are private,
    with their disks' flushes on, and share this machine with the worker.
    """
    click.echo(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}", err=True)
    with PrivatePostgres() as postgres, PrivateRabbitMQ() as rabbitmq:
        shop = Shop(postgres.url(), rabbitmq.url(), "purchase", "purchase.XQ")
        shop.make_tables()
        shop.open_sale()
        shop.query(_NOTIFY)
        users = [f"buyer-{number}" for number in range(events + 10)]
        with RunningWorker(shop.environment(), processes=processes) as worker:
            worker.wait_for_log("broker.connected", _START_SECONDS, lines=processes)
            seconds = _measure(shop, users, pause)[10:]
            worker.terminate()
            worker.wait(_EXIT_SECONDS)
        shop.assert_settled(users)

    milliseconds = sorted(each * 1000 for each in seconds)
    percentiles = statistics.quantiles(milliseconds, n=100, method="inclusive")
    click.echo(f"events     {events}, one at a time")
    click.echo(f"median     {percentiles[49]:.1f} ms")
    click.echo(f"p99        {percentiles[98]:.1f} ms")
    click.echo(f"slowest    {milliseconds[-1]:.1f} ms")


def _measure(shop: Shop, users: list[str], pause: float) -> list[float]:
    """Seconds from each publish to its commit."""
    persistent = BasicProperties(delivery_mode=PERSISTENT_DELIVERY_MODE)
    listener = psycopg2.connect(shop.database_url)
    listener.autocommit = True
    listener.cursor().execute("LISTEN committed")
    taken = []
    with shop.channel() as channel:
        for user in users:
            body = shop.event(user)
            started = time.perf_counter()
            channel.basic_publish("", shop.purchase_queue, body, persistent)
            _wait_for_commit(listener)
            taken.append(time.perf_counter() - started)
            channel.connection.sleep(pause)
    listener.close()
    return taken


def _wait_for_commit(listener: Any) -> None:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while not listener.notifies:
        readable, _, _ = select.select([listener], [], [], max(0, deadline - time.monotonic()))
        if not readable:
            raise click.ClickException(f"no commit within {_ANSWER_SECONDS} s of a publish")
        listener.poll()
    listener.notifies.clear()


if __name__ == "__main__":
    main()
