"""Where a scenario plays: private servers, sales, a worker, and the account at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import click

from benchmarks.scenarios.load import USER_SQL, Load, Offered
from benchmarks.stage import Stage
from flashsale.accounting import Found, Published, account
from tests.support.shop import Shop
from tests.support.workers import RunningWorker

_START_SECONDS = 20
_EXIT_SECONDS = 20
_POLL_SECONDS = 0.25
_QUEUE = "purchase"
_DEAD_LETTERS = "purchase.XQ"
#: The shares of the latencies that :meth:`Scene.latencies` tells.
SHARES = (0.5, 0.9, 0.99, 0.999, 1.0)

# How many purchases of a sale have their order, and how many orders there are; the same of the
# CONFIRMED rows that name an order. The unique index lets no purchase have two orders.
_TRACES = f"""
WITH sale AS (SELECT %s::uuid AS id, %s AS events),
     wanted AS (SELECT {USER_SQL} AS user_id
                FROM sale, generate_series(0, sale.events - 1) AS n),
     ours AS (SELECT orders.id::text, user_id FROM orders, sale WHERE sale_id = sale.id),
     ticked AS (SELECT ours.id, user_id FROM ours JOIN wanted USING (user_id)),
     audit AS (SELECT metadata->>'orderId' AS order_id, user_id
               FROM order_audit_trail, sale WHERE sale_id = sale.id AND event_type = 'CONFIRMED')
SELECT (SELECT count(*) FROM ticked), (SELECT count(*) FROM ours),
       (SELECT count(DISTINCT ticked.id) FROM ticked
        JOIN audit ON audit.order_id = ticked.id AND audit.user_id = ticked.user_id),
       (SELECT count(*) FROM audit)
"""
_COUNT = "SELECT count(*) FROM orders WHERE sale_id = %s"
_COMMITS = """
SELECT split_part(user_id, '-', 2)::float AS number,
       extract(epoch FROM pg_xact_commit_timestamp(xmin))::float AS committed_at
FROM orders WHERE sale_id = %s
"""
_LATENCIES = f"""
SELECT percentile_cont(%s::float[]) WITHIN GROUP (ORDER BY committed_at - (%s + number / %s))
FROM ({_COMMITS}) AS commits WHERE number >= %s
"""


class Scene:
    """Private servers, as durable as real ones, and what plays on them; see :func:`scene`."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._sales: list[tuple[Shop, int]] = []

    def open_sale(self, events: int, database: str = "flashsale") -> Shop:
        """A new sale, of which so many purchases are going to be published."""
        shop = self.shop(database)
        shop.open_sale()
        self.expect(shop, events)
        return shop

    def expect(self, shop: Shop, events: int) -> None:
        """So many purchases of this sale are going to be accounted for at the worker's end."""
        self._sales.append((shop, events))

    def offer(self, rate: float, events: int) -> tuple[Shop, Load]:
        """A new sale, and the load that offers its purchases from now on."""
        shop = self.open_sale(events)
        return shop, Load(
            shop.broker_url, shop.purchase_queue, shop.sale_id, rate=rate, events=events
        )

    @contextmanager
    def worker(self, processes: int, database: str = "flashsale") -> Iterator[RunningWorker]:
        """A worker that has connected; at the end of the block it stops, and all is accounted for.

        Raises:
            click.ClickException: it did not end well, or not every purchase has exactly one order
                and one CONFIRMED row; the text names the lines of the account that are wrong.
        """
        with RunningWorker(self.shop(database).environment(), processes=processes) as worker:
            worker.wait_for_log("broker.connected", _START_SECONDS, lines=processes)
            yield worker
            worker.terminate()
            exit_code = worker.wait(_EXIT_SECONDS)
            stopped = worker.logged("worker.stopped")
        if exit_code or len(stopped) != processes:
            raise click.ClickException(
                f"the worker ended with exit code {exit_code},"
                f" {len(stopped)} of its {processes} processes in order"
            )
        self._check_account(sum(line["settled"] for line in stopped))

    def wait_for_orders(self, shop: Shop, count: int, timeout: float) -> None:
        """Return when a sale has so many orders.

        Raises:
            click.ClickException: it has not, `timeout` seconds later.
        """
        # To count scans the sale's orders, so that waits until the queue, which costs nothing, is
        # empty.
        deadline = time.monotonic() + timeout
        while shop.ready(_QUEUE) or shop.query(_COUNT, shop.sale_id) != [(count,)]:
            if time.monotonic() > deadline:
                raise click.ClickException(f"not {count} orders after {timeout} s")
            time.sleep(_POLL_SECONDS)

    def commits(self, shop: Shop) -> list[float]:
        """The times of a sale's commits, ascending, in seconds since the epoch."""
        return sorted(committed_at for _, committed_at in shop.query(_COMMITS, shop.sale_id))

    def latencies(self, shop: Shop, offered: Offered, first: int) -> list[float]:
        """The percentiles for :data:`SHARES` of the time from due to commit, in milliseconds.

        Counted from the purchase `first` on. A commit's time is that before the flush of its log.
        """
        ((seconds,),) = shop.query(
            _LATENCIES, list(SHARES), offered.started_at, offered.rate, shop.sale_id, first
        )
        return [each * 1_000 for each in seconds]

    def flushes(self) -> tuple[int, float]:
        """Flushes of PostgreSQL's log so far, and the milliseconds that they took."""
        with closing(self.stage.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT wal_sync, wal_sync_time FROM pg_stat_wal")
            count, milliseconds = cursor.fetchone()
        return count, milliseconds

    def shop(self, database: str = "flashsale") -> Shop:
        """What asks and publishes, with a sale of its own that is not open yet."""
        return Shop(
            self.stage.postgres.url(database), self.stage.rabbitmq.url(), _QUEUE, _DEAD_LETTERS
        )

    def _check_account(self, settled: int) -> None:
        published, found = Published(), Found(settled=settled)
        for shop, events in self._sales:
            # Without figures on the new sale PostgreSQL takes it for one row, and compares each
            # of its orders with each of its purchases.
            shop.query("ANALYZE")
            ((ticked, orders, confirmed, audit),) = shop.query(_TRACES, shop.sale_id, events)
            published.orders += events
            found.orders += ticked
            found.stray_orders += orders - ticked
            found.audit_rows += confirmed
            found.stray_audit_rows += audit - confirmed
        found.still_queued = self.shop().ready(_QUEUE)
        found.dead_letters["any"] = self.shop().ready(_DEAD_LETTERS)
        wrong = [line for line in account(published, found) if not line.is_right]
        if wrong:
            lines = "; ".join(f"{each.name} {each.found} of {each.expected}" for each in wrong)
            raise click.ClickException(f"the account does not come out even: {lines}")
        self._sales.clear()  # the next worker's tally begins at nought


@contextmanager
def scene(settings: Mapping[str, str] | None = None) -> Iterator[Scene]:
    """Start private servers, with flushes to disk on; `settings` are added to PostgreSQL's."""
    click.echo(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}", err=True)
    with Stage({"track_wal_io_timing": "on", **(settings or {})}) as stage:
        yield Scene(stage)
