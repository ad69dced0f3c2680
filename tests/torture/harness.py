"""One round: workers under load, faults from a scenario, then healing, draining and the account."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg2
from pika.exceptions import ChannelClosedByBroker

from tests.support.postgres import PrivatePostgres
from tests.support.waiting import wait_until
from tests.torture.closing import close_round
from tests.torture.events import EventSource
from tests.torture.fleet import Fleet
from tests.torture.history import Verdict
from tests.torture.load import Load
from tests.torture.scenario import Scenario
from tests.torture.stage import Stage

#: Within this time after healing, orders must be committed again.
LIVENESS_SECONDS = 10.0

_BOOT_SECONDS = 30.0
_POLL_SECONDS = 0.02
# Times of the product, scaled down as far as their meaning allows, so that rounds are short.
_SETTINGS = {
    "FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "3",
    "FLASHSALE_BREAKER_HOLD_SECONDS": "1",
    "FLASHSALE_RETRY_MAX_SECONDS": "2",
    "FLASHSALE_LOG_FORMAT": "json",
}


@dataclass
class Report:
    """What a round has shown."""

    scenario: Scenario
    seed: int
    verdict: Verdict = field(default_factory=Verdict)
    #: Broken expectations, those of the account first.
    problems: list[str] = field(default_factory=list)
    #: Seconds from each healing to the next order committed.
    recoveries: list[float] = field(default_factory=list)
    restarts: int = 0
    #: CONFIRMED rows that only a reconciler could write, since a process died before it did.
    reconciled: int = 0
    seconds: float = 0.0
    log_tail: str = ""


class Round:
    """What a scenario works with: servers, proxies, workers and load of its own, and a seed.

    A scenario calls :meth:`start`, breaks things, mends them and says so by :meth:`healed`. When it
    returns, all must be whole.
    """

    def __init__(self, stage: Stage, report: Report) -> None:
        self.stage = stage
        self.choice = random.Random(f"{report.scenario.name} {report.seed}")
        self.report = report
        #: Whether a process may have ended between an order's commit and its audit row's, so that
        #: only a reconciler can write it.
        self.audit_may_lag = True
        self._resources = ExitStack()
        self.fleets: list[Fleet] = []
        #: Dead letters taken out of their queue so far, each with its headers.
        self.letters: list[tuple[bytes, Mapping[str, Any]]] = []

    def __enter__(self) -> Self:
        self.stage.restore()
        self.place = self._resources.enter_context(self.stage.place())
        self.events = EventSource(self.choice, self.place.sale_ids)
        #: What the workers consume and the load is spread over; a scenario may add to it.
        self.queues = [self.place.purchase_queue]
        self.load = Load(self.choice, self.events, self.stage.rabbitmq.url(), self.queues)
        self._counting = self._resources.enter_context(_OrderCount(self.stage, self.place.database))
        return self

    def __exit__(self, *_: object) -> None:
        with self._resources:
            for fleet in self.fleets:
                self.report.log_tail += _tail(fleet)
                fleet.close()
            with suppress(TimeoutError):
                self.load.stop()

    def start(self, **options: Any) -> None:
        """Start workers, with the options of :meth:`start_workers`, and the load.

        Returns when the first orders are committed.
        """
        self.start_workers(**options)
        self.load.start()
        wait_until(lambda: self.orders() or 0, _BOOT_SECONDS, "the workers commit orders")

    def start_workers(
        self,
        *,
        masters: int = 2,
        processes: int = 1,
        settings: Mapping[str, str] | None = None,
        database_query: str = "",
        broker_query: str = "",
        modules: Sequence[str] = (),
        log: Path | None = None,
    ) -> Fleet:
        """Start workers alone; return when all of them consume."""
        stage, place = self.stage, self.place
        environment = {
            **_SETTINGS,
            "DATABASE_URL": stage.worker_database_url(place.database) + database_query,
            "RABBITMQ_URL": ";".join(
                node + broker_query for node in stage.worker_broker_url.split(";")
            ),
            "PURCHASE_QUEUE": ",".join(self.queues),
            "DEAD_LETTER_QUEUE": place.dead_letter_queue,
            **(settings or {}),
        }
        self.workers = Fleet(environment, masters=masters, processes=processes)
        environment["FLASHSALE_STATE_FOLDER"] = str(self.workers.folder / "state")
        self.workers.modules = modules
        self.workers.log = log or self.workers.log
        self.fleets.append(self.workers)
        self.workers.start()
        wait_until(
            lambda: self.consumers() >= self.workers.size, _BOOT_SECONDS, "all workers consume"
        )
        return self.workers

    def pause(self, shortest: float, longest: float) -> None:
        """Let it run for a random time, in seconds."""
        time.sleep(self.choice.uniform(shortest, longest))

    def orders(self) -> int | None:
        """Orders so far; None while PostgreSQL does not answer."""
        return self._counting.read()

    def ready(self, queue: str = "") -> int | None:
        """Messages that wait in a queue, or in all purchase queues; None if one is missing."""
        found = [self._declared(each) for each in ([queue] if queue else self.queues)]
        return None if None in found else sum(int(each.message_count) for each in found)

    def consumers(self) -> int:
        """Workers that consume, from the purchase queue with fewest."""
        found = [self._declared(queue) for queue in self.queues]
        return 0 if None in found else min(int(each.consumer_count) for each in found)

    def _declared(self, queue: str) -> Any:
        with self.stage.rabbitmq.connect() as connection:
            channel = connection.channel()
            try:
                return channel.queue_declare(queue, passive=True).method
            except ChannelClosedByBroker:
                return None

    def is_quiet(self) -> bool:
        """Whether all that was published so far is where it belongs, and no queue holds it."""
        history = self.load.history
        keys = {event.key for event in history.confirmed if event.key}
        letters = sum(event.key is None for event in history.confirmed) - len(self.letters)
        return (
            (self.orders() or 0) >= len(keys)
            and (self.ready(self.place.dead_letter_queue) or 0) >= letters
            and self.ready() == 0
        )

    def orders_without_audit(self) -> int:
        """Orders whose CONFIRMED row is not written yet."""
        ((count,),) = self.query(
            "SELECT count(*) FROM orders WHERE NOT EXISTS (SELECT FROM order_audit_trail AS audit"
            " WHERE event_type = 'CONFIRMED' AND metadata->>'orderId' = orders.id::text)"
        )
        return int(count)

    def declare(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Declare a durable queue."""
        with self.stage.rabbitmq.connect() as connection:
            connection.channel().queue_declare(queue, durable=True, arguments=arguments)

    def take_dead_letters(self) -> None:
        """Take the dead letters out of their queue; the account will know of them."""
        self.letters += self.take_all(self.place.dead_letter_queue)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement in the round's database, as superuser."""
        return self.stage.query(self.place.database, sql, *parameters)

    def expect(self, holds: object, what: str) -> None:
        """Write down a broken expectation, and go on."""
        if not holds:
            self.report.problems.append(what)

    def expect_within(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        try:
            wait_until(condition, seconds, what)
        except TimeoutError as error:
            self.report.problems.append(str(error))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The workers' log lines of this event so far."""
        lines = self.workers.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"') and event in line]
        return [line for line in found if line["event"] == event]

    def healed(self) -> None:
        """All works again from now on: measure until the next order is committed."""
        begin = time.monotonic()
        before = self.orders()
        while time.monotonic() - begin < LIVENESS_SECONDS:
            if (self.orders() or 0) > (before or 0):
                self.report.recoveries.append(time.monotonic() - begin)
                return
            time.sleep(_POLL_SECONDS)
        self.report.recoveries.append(LIVENESS_SECONDS)
        self.report.problems.append(f"no order within {LIVENESS_SECONDS:g} s of healing")

    def sells_again(self, seconds: float) -> None:
        """All works again from now on: measure until an event that is published now is an order.

        For a queue that is away: a worker may hold events from before, and commit them meanwhile.
        """
        begin = time.monotonic()
        key = self.load.publish_one().key
        assert key is not None
        found = "SELECT 1 FROM orders WHERE sale_id = %s AND user_id = %s"
        self.expect_within(
            lambda: self.query(found, *key),
            seconds - (time.monotonic() - begin),
            f"an event is an order within {seconds:g} s",
        )
        self.report.recoveries.append(time.monotonic() - begin)

    def take_all(self, queue: str) -> list[tuple[bytes, Mapping[str, Any]]]:
        """Take every message out of a queue: its body and its headers."""
        taken: list[tuple[bytes, Mapping[str, Any]]] = []
        with self.stage.rabbitmq.connect() as connection:
            channel = connection.channel()
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return taken
                taken.append((body, properties.headers or {}))


class _OrderCount:
    """Counts orders on one connection, made anew when it is lost or leads to another server."""

    def __init__(self, stage: Stage, database: str) -> None:
        self._stage, self._database = stage, database
        self._server: PrivatePostgres | None = None
        self._connection: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def read(self) -> int | None:
        try:
            return self._read()
        except psycopg2.OperationalError:
            # Of a server that was away the old connection knows nothing; a new one may.
            with suppress(psycopg2.Error):
                return self._read()
        except psycopg2.Error:
            pass
        return None

    def _read(self) -> int:
        server = self._stage.postgres
        if self._connection is None or self._connection.closed or server is not self._server:
            self._connection, self._server = server.connect(self._database), server
        with self._connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '500ms'; SELECT count(*) FROM orders")
            ((count,),) = cursor.fetchall()
        return int(count)


def run_round(stage: Stage, scenario: Scenario, seed: int) -> Report:
    """Run one round. Whatever goes wrong in it is in the report."""
    begin = time.monotonic()
    report = Report(scenario, seed)
    try:
        with scenario.on(stage) as own, Round(own, report) as round_:
            scenario.run(round_)
            close_round(round_)
    except Exception as error:  # noqa: BLE001  # the other scenarios are to run all the same
        report.problems.append(f"{type(error).__name__}: {error}")
    report.seconds = time.monotonic() - begin
    return report


def _tail(fleet: Fleet, lines: int = 40) -> str:
    if not fleet.log.is_file():
        return ""
    return "\n".join(fleet.log.read_text(errors="replace").splitlines()[-lines:])
