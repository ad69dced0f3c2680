"""One contestant drains one backlog: the run, its clock and what it used."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from tests.support.shop import Shop
from tests.support.workers import RunningWorker

from .contestants import Contestant
from .stage import Stage, publish, settle
from .usage import UsageSampler

_POLL_SECONDS = 0.2
_LEAST_TIMEOUT_SECONDS = 120
_EXIT_SECONDS = 30

# An event is done when both its rows are committed. The clock runs while the contestant is in its
# stride: from the tenth part of the backlog on, when every process has started and is warm, until
# the last hundredth, which may wait for a timer, and finds some processes out of work.
CLOCK = """
WITH done AS (
    SELECT greatest(pg_xact_commit_timestamp(orders.xmin), pg_xact_commit_timestamp(audit.xmin))
    AS at FROM orders JOIN order_audit_trail AS audit USING (sale_id, user_id)
    WHERE sale_id = %s
), marks AS (
    SELECT percentile_disc(0.1) WITHIN GROUP (ORDER BY at) AS start,
           percentile_disc(0.99) WITHIN GROUP (ORDER BY at) AS finish,
           min(at) AS first, max(at) AS last
    FROM done
)
SELECT (SELECT count(*) FROM done, marks WHERE at > start AND at <= finish),
       extract(epoch FROM start)::float, extract(epoch FROM finish)::float,
       extract(epoch FROM last - first)::float
FROM marks
"""


class Refused(Exception):
    """The run counts for nothing; the text says what was not right."""


@dataclass(frozen=True)
class Run:
    """A run whose tables were exactly right at its end.

    Attributes:
        events: The backlog.
        orders_per_second: Events done a second, both rows committed, in full stride.
        whole_seconds: From the first commit to the last.
        cpu_microseconds: An event's share by group: worker, postgresql, rabbitmq; in full stride.
        peak_process_bytes: The most resident memory that one process of the worker had.
        peak_total_bytes: The most that all of them had at once; shared pages count for each.
    """

    contestant: str
    events: int
    processes: int
    orders_per_second: float
    whole_seconds: float
    cpu_microseconds: dict[str, float]
    peak_process_bytes: int
    peak_total_bytes: int


def run(
    stage: Stage,
    contestant: Contestant,
    *,
    events: int,
    processes: int = 3,
    environment: dict[str, str] | None = None,
) -> Run:
    """Let a contestant drain a backlog on a fresh shop.

    Args:
        environment: Settings for the worker, besides its own and the shop's.

    Raises:
        Refused: it ended early, stood still, did not stop, or left wrong tables.
    """
    shop = stage.fresh_shop()
    publish(shop, contestant, events)
    shop.query("CHECKPOINT")  # what publishing and the run before have left is not this one's
    settings = {**shop.environment(), **contestant.environment, **(environment or {})}
    settings["PYTHONPATH"] = str(contestant.folder)
    with RunningWorker(settings, command=contestant.argv(processes)) as worker:
        with UsageSampler({"worker": worker.pid, **stage.pids()}, "worker") as usage:
            _wait_until_done(shop, worker, contestant, events)
        worker.terminate()
        _wait_for_exit(worker)
    if faults := settle(shop, events).faults(events):
        raise Refused("; ".join(faults))
    ((counted, start, finish, whole),) = shop.query(CLOCK, shop.sale_id)
    if not counted:
        raise Refused("the backlog is too small for a rate: nearly all of it was one commit")
    cpu = usage.cpu_between(start, finish)
    return Run(
        contestant=contestant.name,
        events=events,
        processes=processes,
        orders_per_second=round(counted / (finish - start), 1),
        whole_seconds=whole,
        cpu_microseconds={name: round(each / counted * 1e6, 2) for name, each in cpu.items()},
        peak_process_bytes=usage.peak_process_bytes,
        peak_total_bytes=usage.peak_total_bytes,
    )


def _wait_until_done(
    shop: Shop, worker: RunningWorker, contestant: Contestant, events: int
) -> None:
    # The queue's length costs the servers nothing to tell; the tables are counted at the end only.
    deadline = time.monotonic() + _LEAST_TIMEOUT_SECONDS + 4 * events / (contestant.pace or events)
    with shop.channel() as channel:
        while True:
            queue = channel.queue_declare(shop.purchase_queue, passive=True).method
            if queue.message_count == 0 and _rows(shop) >= 2 * events:
                return
            try:
                worker.check_running()
            except RuntimeError as ended:
                raise Refused(str(ended)) from None
            if time.monotonic() > deadline:
                raise Refused(f"{queue.message_count} events wait, {_rows(shop)} rows are written")
            time.sleep(_POLL_SECONDS)


def _rows(shop: Shop) -> int:
    ((rows,),) = shop.query(
        "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_audit_trail)"
    )
    return int(rows)


def _wait_for_exit(worker: RunningWorker) -> None:
    try:
        worker.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise Refused(f"it still ran {_EXIT_SECONDS} s after SIGTERM") from None
