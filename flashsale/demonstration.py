"""A sale played through in memory: made-up events whose end is known, and a worker to take them.

Only the broker is not the real one: consumer, actor, tables and audit queue are the worker's own.
"""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, cast

import dramatiq
import peewee

from flashsale.accounting import Found, Line, Published, Roll, account, call_roll
from flashsale.batching import Letter
from flashsale.brokers.embedded import EmbeddedBroker
from flashsale.client import timestamp_now
from flashsale.database import close_database, open_database, session
from flashsale.migration import migrate
from flashsale.models import AuditEvent, AuditEventType, Order, Sale
from flashsale.purchases import Purchase, Reason
from flashsale.settings import Settings
from flashsale.spreading import queue_for
from flashsale.worker import PurchaseWorker

_MOST_WAITING = 10_000
_POLL_SECONDS = 0.01
# Of the audit queue's limit. At the limit itself rows would be left to the reconciler.
_AUDIT_QUEUE_SHARE = 0.5
# Reading a large sale back takes longer than any statement of the worker may.
_STATEMENT_TIMEOUT_SECONDS = 60.0

_SHOPPER = re.compile(r"shopper-([0-9]+)")
# Every bad event carries its number and the reason it is to be refused for, however malformed.
_BAD_SHOPPER = re.compile(rb"bad-([a-z_]+)-([0-9]+)")
_NOBODY = -1

_MADE_BAD: Mapping[Reason, Callable[[str, str, int], bytes]] = {
    Reason.ENCODING: lambda sale, user, _: _encode(sale, f"{user} é").decode().encode("latin-1"),
    Reason.JSON: lambda sale, user, _: _encode(sale, user)[:-1],
    Reason.TYPE: lambda sale, user, _: b"[%b]" % _encode(sale, user),
    Reason.MISSING: lambda _, user, __: b'{"userId":"%b"}' % user.encode(),
    Reason.TEXT: lambda sale, user, _: _encode(sale, f"{user}\n"),
    Reason.LENGTH: lambda sale, user, _: _encode(sale, f"{user:.<256}"),
    Reason.FORMAT: lambda sale, user, _: _encode(sale.replace("-", ""), user),
    Reason.DUPLICATE_KEY: lambda sale, user, _: b'{"userId":"",' + _encode(sale, user)[1:],
    Reason.TOO_LARGE: lambda sale, user, limit: _encode(sale, user) + b" " * limit,
    Reason.UNKNOWN_SALE: lambda _, user, __: _encode(str(uuid.uuid4()), user),
}


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What to make up; the same mix is the same events, save for their sale ids and times.

    The shares, 0 to 1, are of all events and, for repeats, of the good ones. They are chances, so
    they are met about, not exactly.
    """

    events: int = 20_000
    repeat_share: float = 0.05
    bad_share: float = 0.05
    seed: int = 1


def made_up(
    mix: Mix, sale_id: str, published: Published, *, max_event_bytes: int
) -> Iterator[bytes]:
    """The events of `mix`, each entered in `published` when it is handed out."""
    chance = random.Random(mix.seed)  # noqa: S311  (nothing secret depends on it)
    reasons = list(_MADE_BAD)
    for number in range(mix.events):
        if chance.random() < mix.bad_share:
            reason = chance.choice(reasons)
            published.dead_letters[reason] += 1
            yield _MADE_BAD[reason](sale_id, f"bad-{reason}-{number}", max_event_bytes)
        elif chance.random() < mix.repeat_share and published.orders:
            published.duplicates += 1
            yield _encode(sale_id, f"shopper-{chance.randrange(published.orders)}")
        else:
            published.orders += 1
            yield _encode(sale_id, f"shopper-{published.orders - 1}")


@dataclass(frozen=True)
class Outcome:
    """What became of the events. `seconds` last from the start to the last event settled."""

    published: int
    still_queued: int
    lines: tuple[Line, ...]
    seconds: float

    @property
    def is_accounted_for(self) -> bool:
        return all(line.is_right for line in self.lines)

    @property
    def events_per_second(self) -> float:
        return (self.published - self.still_queued) / self.seconds


class Demonstration:
    """A new sale in the database of `settings`, which is migrated first; for one :meth:`run`.

    Raises:
        StoreError: the database failed.
        MigrationError: its tables do not fit.
    """

    def __init__(self, settings: Settings, mix: Mix) -> None:
        self._settings = settings
        self._mix = mix
        self._published = Published()
        self._found = Found()
        self._letters = Roll(mix.events)
        with self._database() as database:
            migrate(database)
            self.sale_id = _open_sale(database, stock=mix.events)
        self._worker = PurchaseWorker(settings, new_broker=EmbeddedBroker)
        self._broker = cast("EmbeddedBroker", self._worker.broker)

    def run(
        self, *, threads: int, interrupted: threading.Event, advance: Callable[[int], object]
    ) -> Outcome:
        """Publish the events, let the worker take them all, stop it, and account for them.

        `advance` is told now and then how many are settled. Once `interrupted` is set, what was
        reached is accounted for. While the database is away this waits, as any worker does.

        Raises:
            StoreError: the rows could not be read back.
        """
        running = dramatiq.Worker(self._broker, worker_threads=threads)
        started = time.monotonic()
        running.start()
        try:
            self._feed(interrupted, advance)
            seconds = time.monotonic() - started
        finally:
            running.stop()  # which also writes the last audit rows
        self._take_letters()
        self._found.settled = self._worker.tally.settled
        self._found.still_queued = self._unfinished()
        self._read_rows()
        return Outcome(
            published=self._published.events,
            still_queued=self._found.still_queued,
            lines=account(self._published, self._found),
            seconds=seconds,
        )

    def _feed(self, interrupted: threading.Event, advance: Callable[[int], object]) -> None:
        """Publish as room allows, so that memory stays bounded however many events there are."""
        settings, tally = self._settings, self._worker.tally
        events = made_up(
            self._mix, self.sale_id, self._published, max_event_bytes=settings.max_event_bytes
        )
        most_unaudited = settings.audit_queue_limit * _AUDIT_QUEUE_SHARE
        while not interrupted.is_set():
            unfinished = self._unfinished()
            advance(tally.settled + tally.dead_lettered)
            if not unfinished and self._published.events == self._mix.events:
                break
            if len(self._worker.trail) < most_unaudited:
                for event in islice(events, _MOST_WAITING - unfinished):
                    self._broker.publish(queue_for(event, settings.purchase_queues), event)
            self._take_letters()
            interrupted.wait(_POLL_SECONDS)

    def _unfinished(self) -> int:
        """Events that are not acknowledged."""
        queues = (self._broker.queues[name] for name in self._settings.purchase_queues)
        return sum(queue.unfinished_tasks for queue in queues)

    def _take_letters(self) -> None:
        letters = self._broker.letters[:]
        # Only these: the worker may have added others meanwhile.
        del self._broker.letters[: len(letters)]
        for letter in letters:
            if self._letters.tick(_number_of(letter)):
                self._found.dead_letters[letter.rejection.reason] += 1
            else:
                self._found.stray_dead_letters += 1

    def _read_rows(self) -> None:
        """Look for every shopper's order and audit row."""
        found, shoppers = self._found, self._published.orders
        orders = Order.select(Order.user_id).where(Order.sale == self.sale_id)
        audit_rows = AuditEvent.select(AuditEvent.user_id).where(
            AuditEvent.sale == self.sale_id, AuditEvent.event_type == AuditEventType.CONFIRMED
        )
        with self._database() as database:
            found.orders, found.stray_orders = call_roll(_shoppers(orders, database), shoppers)
            found.audit_rows, found.stray_audit_rows = call_roll(
                _shoppers(audit_rows, database), shoppers
            )

    @contextmanager
    def _database(self) -> Iterator[peewee.Database]:
        """Not the worker's, which runs against the clock while it stops, and then is closed."""
        database = open_database(
            self._settings.database, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS
        )
        try:
            yield database
        finally:
            close_database(database)


def _encode(sale_id: str, user_id: str) -> bytes:
    return Purchase(sale_id, user_id, timestamp_now()).encode()


def _number_of(letter: Letter) -> int:
    """Which bad event came to this, its due, end."""
    made = _BAD_SHOPPER.search(letter.delivery.body)
    if made is None or made[1].decode() != letter.rejection.reason:
        return _NOBODY
    return int(made[2])


def _shoppers(rows: peewee.ModelSelect[Any], database: peewee.Database) -> Iterator[int]:
    """The numbers of the shoppers in `rows` of one column, the user id."""
    with session(database):
        for (user_id,) in rows.tuples().iterator(database):
            shopper = _SHOPPER.fullmatch(user_id)
            yield int(shopper[1]) if shopper else _NOBODY


def _open_sale(database: peewee.Database, *, stock: int) -> str:
    sale_id = str(uuid.uuid4())
    starts_at = datetime.now(UTC)
    sale = Sale.insert(
        id=sale_id,
        name="flashsale demo",
        total_stock=stock,
        starts_at=starts_at,
        ends_at=starts_at + timedelta(hours=1),
    )
    with session(database):
        sale.execute(database)
    return sale_id
