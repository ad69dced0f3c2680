"""The load that is offered: purchases on a schedule of their own, from a process of their own.

Purchase n is due at ``start + n / rate``, whatever became of those before it: a worker, or a
RabbitMQ, that slows down is not spared the load of that time, and latencies counted from when a
purchase was due leave nothing out ("coordinated omission").
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

import click

from benchmarks.scenarios.amqp import FastPublisher

_PUBLISHED_AHEAD = 5_000  # without a schedule, unconfirmed messages are bounded
_BURST = 500
_END_SECONDS = 60.0
# Knuth's multiplicative hash: neighbours in time are strangers in the index, as shoppers are.
_SCATTER = 2_654_435_761
#: SQL for the user id of purchase ``n``, as :func:`user` makes it.
USER_SQL = f"lpad(to_hex(n::bigint * {_SCATTER} & 4294967295), 8, '0') || '-' || n"


def user(number: int) -> str:
    """The shopper of purchase `number`: ids in order of time are in no order of the alphabet."""
    return f"{number * _SCATTER & 0xFFFFFFFF:08x}-{number}"


def purchases(sale_id: str, first: int, end: int) -> Iterator[bytes]:
    """The bodies of the purchases from `first` to before `end`, with the time it is now."""
    now = time.time()
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    tail = f'","timestamp":"{second}.{int(now % 1 * 1000):03d}Z"}}'
    for number in range(first, end):
        yield f'{{"saleId":"{sale_id}","userId":"{user(number)}{tail}'.encode()


def publish_backlog(url: str, queue: str, sale_id: str, events: int) -> None:
    """Publish these at once; returns when all are confirmed.

    Raises:
        OSError: RabbitMQ has not taken all.
    """
    with FastPublisher(url, queue) as publisher:
        for first in range(0, events, _BURST):
            publisher.publish(purchases(sale_id, first, min(first + _BURST, events)))
            publisher.wait(unconfirmed=_PUBLISHED_AHEAD)
        publisher.wait()


@dataclass(frozen=True)
class Offered:
    """What a load has offered. Times are seconds since the epoch, as PostgreSQL has them too."""

    events: int
    rate: float
    started_at: float
    ended_at: float
    #: The longest that a purchase left after it was due.
    latest_seconds: float
    cpu_seconds: float


class Load:
    """A process that offers purchases of one sale; it ends with the ``with`` block."""

    def __init__(self, url: str, queue: str, sale_id: str, *, rate: float, events: int) -> None:
        self.seconds = events / rate
        #: By the monotonic clock.
        self.begun = time.monotonic()
        arguments = [f"--rate={rate}", f"--events={events}", queue, sale_id]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments],
            env={"RABBITMQ_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> Offered:
        """What was offered, once all of it is confirmed.

        Raises:
            RuntimeError: it was not; the process has said why on stderr.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, _ = self._process.communicate(timeout=self.seconds + _END_SECONDS)
            if self._process.returncode == 0:
                return Offered(**json.loads(output))
        raise RuntimeError("the load could not be offered as planned")


def _offer(publisher: FastPublisher, sale_id: str, *, rate: float, events: int) -> Offered:
    started_at = time.time()
    sent, latest = 0, 0.0
    while sent < events:
        now = time.time()
        due = min(events, int((now - started_at) * rate) + 1)
        if due > sent:
            publisher.publish(purchases(sale_id, sent, due))
            latest = max(latest, time.time() - started_at - sent / rate)
            sent = due
        publisher.serve(started_at + sent / rate - time.time())
    publisher.wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = used.ru_utime + used.ru_stime
    return Offered(events, rate, started_at, time.time(), latest, cpu_seconds)


@click.command()
@click.option("--rate", required=True, type=click.FloatRange(min=0.1), help="Purchases a second.")
@click.option("--events", required=True, type=click.IntRange(min=1), help="Purchases in all.")
@click.option("--url", envvar="RABBITMQ_URL", required=True, help="By default RABBITMQ_URL.")
@click.argument("queue")
@click.argument("sale_id")
def main(rate: float, events: int, url: str, queue: str, sale_id: str) -> None:
    """Offer purchases of SALE_ID on QUEUE at a steady rate; print what was offered, as JSON."""
    with FastPublisher(url, queue) as publisher:
        offered = _offer(publisher, sale_id, rate=rate, events=events)
    click.echo(json.dumps(asdict(offered)))


if __name__ == "__main__":
    main()
