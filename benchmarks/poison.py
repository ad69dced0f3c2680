"""What bad events among the good ones cost them: ``python -m benchmarks.poison``."""

from __future__ import annotations

import os
import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import click

from flashsale.brokers.dead_letter_writer import HEADER_PREFIX
from tests.support.shop import Shop
from tests.support.workers import RunningWorker

from .stage import Stage
from .usage import UsageSampler

_POLL_SECONDS = 0.2
_TIMEOUT_SECONDS = 120
_EXIT_SECONDS = 10

# Refused only here, so that no parser sees it: once by a constraint, and once by a value that the
# constraint's expression cannot take, for which PostgreSQL does not name the row.
_REFUSE = """
ALTER TABLE orders
    ADD CONSTRAINT no_outlaws CHECK (user_id NOT LIKE '%-outlaw'),
    ADD CONSTRAINT no_riddles CHECK (user_id NOT LIKE '%-riddle' OR length(user_id) / 0 = 0)
"""
# In full stride: from a tenth of the orders on, when all processes are warm, to the last hundredth.
_CLOCK = """
WITH orders AS (SELECT pg_xact_commit_timestamp(xmin) AS at FROM orders), marks AS (
    SELECT percentile_disc(0.1) WITHIN GROUP (ORDER BY at) AS start,
           percentile_disc(0.99) WITHIN GROUP (ORDER BY at) AS finish
    FROM orders
)
SELECT (SELECT count(*) FROM orders, marks WHERE at > start AND at <= finish),
       extract(epoch FROM start)::float, extract(epoch FROM finish)::float
FROM marks
"""

_NEED_A_CONSTRAINT = _NAMED, _UNNAMED = "SQLSTATE 23514", "SQLSTATE 22012"
# Each kind of bad event with the reason that its dead letters must have.
_REASONS = {
    "unreadable": "json",
    "refused by the parser": "length",
    "unknown sale": "unknown_sale",
    _NAMED: "constraint",
    _UNNAMED: "constraint",
}
_CLEAN, _MIXED = "no bad events", "the first three mixed"


class _Run(NamedTuple):
    good_per_second: float
    cpu_microseconds: dict[str, float]


@click.command()
@click.option(
    "--events",
    default=100_000,
    show_default=True,
    type=click.IntRange(min=5_000),
    help="Events in each backlog, good and bad.",
)
@click.option("--share", default=0.1, show_default=True, help="The part of them that is bad.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of each."
)
@click.option("--each-kind", is_flag=True, help="Measure each kind of bad event alone as well.")
@click.option("--processes", default=3, show_default=True, help="Processes of the worker.")
def main(events: int, share: float, rounds: int, each_kind: bool, processes: int) -> None:
    """Drain backlogs without and with bad events, in turns, and compare the rate of the good ones.

    The rate is that of good events whose orders are committed, a second, by PostgreSQL's own record
    of commit times, from the first tenth of them to the last hundredth. What the bad events cost,
    also their dead letters, which are published meanwhile, shows in the time it takes. The ratio
    is that of the medians. CPU is for each event of the backlog, good or bad, in that time.

    Bad are, in equal parts and at random places, the ways in which an event can be so by itself:
    JSON cut short, a user id too long, a sale that does not exist. --each-kind measures each of
    them alone as well, and two that need a constraint which the tables do not have by themselves:
    one that refuses the order (23514), and one whose expression fails on it (22012), for which
    PostgreSQL does not name the row, so that it must be searched for.

    Fails where a run does not lead to one order for each good event, and to one dead letter with
    the right reason for each bad one.
    """
    click.echo(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}", err=True)
    mixes: dict[str, Sequence[str]] = {
        _CLEAN: (),
        _MIXED: tuple(kind for kind in _REASONS if kind not in _NEED_A_CONSTRAINT),
    }
    if each_kind:
        mixes |= {kind: (kind,) for kind in _REASONS}
    runs: dict[str, list[_Run]] = {name: [] for name in mixes}
    with Stage() as stage:
        for _ in range(rounds):
            for name, kinds in mixes.items():
                bad = round(events * share) if kinds else 0
                runs[name].append(_drain(stage, kinds, events - bad, bad, processes))

    _report(runs)


def _drain(stage: Stage, kinds: Sequence[str], good: int, bad: int, processes: int) -> _Run:
    shop = stage.fresh_shop()
    shop.query(_REFUSE)
    users = [f"buyer-{number}" for number in range(good)]
    bodies = [shop.event(user) for user in users]
    bodies += [_bad_event(shop, kinds[number % len(kinds)], number) for number in range(bad)]
    random.Random(0).shuffle(bodies)  # the same places each time
    shop.publish(bodies)
    shop.query("CHECKPOINT")  # what the run before has left is not this one's
    with RunningWorker(shop.environment(), processes=processes) as worker:
        with UsageSampler({"worker": worker.pid, **stage.pids()}, "worker") as usage:
            _wait_until_settled(shop, good, bad)
        worker.terminate()
        if exit_code := worker.wait(_EXIT_SECONDS):
            raise click.ClickException(f"the worker ended with exit code {exit_code}")
    letters = shop.take_all(shop.dead_letter_queue)
    found = Counter(headers[f"{HEADER_PREFIX}reason"] for _, headers in letters)
    expected = Counter(_REASONS[kinds[number % len(kinds)]] for number in range(bad))
    if found != expected:
        raise click.ClickException(f"dead letters by reason: {found}, not {expected}")
    shop.assert_settled(users)
    ((counted, start, finish),) = shop.query(_CLOCK)
    cpu = usage.cpu_between(start, finish)
    of_all = counted * (good + bad) / good
    return _Run(
        counted / (finish - start),
        {group: seconds / of_all * 1e6 for group, seconds in cpu.items()},
    )


def _bad_event(shop: Shop, kind: str, number: int) -> bytes:
    if kind == "unreadable":
        return shop.event(f"reader-{number}")[:-1]
    if kind == "refused by the parser":
        return shop.event(f"{number}-{'x' * 255}")
    if kind == "unknown sale":
        return shop.event(f"stranger-{number}", sale_id=str(uuid.uuid4()))
    # Named so that they lie among the good ones in the order of the insert as well.
    return shop.event(f"buyer-{number * 9}-{'outlaw' if kind == _NAMED else 'riddle'}")


def _wait_until_settled(shop: Shop, good: int, bad: int) -> None:
    # Seldom, and the tables only once the queue is empty, since counting them costs the server.
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with shop.channel() as channel:
        while True:
            waiting = channel.queue_declare(shop.purchase_queue, passive=True).method.message_count
            if waiting == 0 and shop.order_count() == good:
                # The worker declares this queue at its start, so only now it is sure to be there.
                letters = shop.ready(shop.dead_letter_queue)
                if letters >= bad:
                    return
            if time.monotonic() > deadline:
                raise click.ClickException(f"after {_TIMEOUT_SECONDS} s {waiting} events wait")
            time.sleep(_POLL_SECONDS)


def _report(runs: dict[str, list[_Run]]) -> None:
    groups = sorted(runs[_CLEAN][0].cpu_microseconds)
    clean = statistics.median(run.good_per_second for run in runs[_CLEAN])
    click.echo(f"{'':<22} good/s  ratio  " + "  ".join(f"{f'{each} µs':>13}" for each in groups))
    for name, of_mix in runs.items():
        rate = statistics.median(run.good_per_second for run in of_mix)
        cpu = (statistics.median(run.cpu_microseconds[group] for run in of_mix) for group in groups)
        shown = "  ".join(f"{each:>13.0f}" for each in cpu)
        click.echo(f"{name:<22} {rate:>6.0f}  {rate / clean:>5.2f}  {shown}")


if __name__ == "__main__":
    main()
