"""Builds the parts of one worker process, and owns the order in which they start and stop."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import dramatiq
from apscheduler.schedulers.background import BackgroundScheduler
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from flashsale.audit import AuditTrail
from flashsale.batching import BatchingConsumer, Breaker, HeldRetries, Limits, Tally, Transport
from flashsale.brokers.embedded import EmbeddedBroker
from flashsale.brokers.rabbitmq import PurchaseBroker
from flashsale.confirmation import Confirmation, failure_of, read_purchase
from flashsale.database import PostgresDatabase, close_database, open_database
from flashsale.errors import StoreError
from flashsale.logs import LogQueue, handler
from flashsale.orders import OrderBook
from flashsale.purchases import Purchase
from flashsale.reconcile import Reconciler
from flashsale.schedule import SizeTrigger, add_interval_jobs
from flashsale.settings import Settings
from flashsale.suspects import Suspects
from flashsale.watchdog import Watchdog, stop_with_parent

log = logging.getLogger(__name__)

ACTOR_NAME = "confirm_purchases"

# Dramatiq's threads look this often whether they are to stop. Its own second, for the threads and
# again for the process, would take most of the five that a stop may last.
_THREAD_POLL_MILLISECONDS = 250
# What statements under way may take of the time for a shutdown; the rest is for the audit trail.
_STATEMENTS_SHARE = 0.6
_BACKSTOP_GRACE_SECONDS = 0.5
_STUCK_SECONDS = 30.0
_EXIT_ABANDONED = 1


class PurchaseWorker:
    """One process's worker: its broker and actor, its database, its audit trail.

    Making one connects to nothing and starts nothing. Dramatiq's worker drives :meth:`start`,
    :meth:`drain` and :meth:`stop` when it boots, begins to shut down, and has shut down.

    With `embedded`, events come from this process's memory (:class:`EmbeddedBroker`).
    """

    broker: PurchaseBroker | EmbeddedBroker

    def __init__(self, settings: Settings, *, embedded: bool = False) -> None:
        self.settings = settings
        self.database = open_database(
            settings.database, statement_timeout_seconds=settings.statement_timeout_seconds
        )
        self.trail = AuditTrail(
            self.database,
            batch_size=settings.audit_batch_size,
            limit=settings.audit_queue_limit,
        )
        self.tally = Tally()
        self._flusher = SizeTrigger(self.trail)
        self._reconciler = Reconciler(self.database)
        self._scheduler = BackgroundScheduler()
        add_interval_jobs(
            self._scheduler,
            settings,
            flush=self.trail.flush_quietly,
            reconcile=self._reconciler.run_quietly,
        )
        self._watchdog = Watchdog(self._symptom)
        # In memory nothing is redelivered to a process that comes after this one.
        self._suspects = None if embedded else Suspects(Path(settings.state_folder))
        self._consumers: list[BatchingConsumer[Purchase]] = []
        self._host: dramatiq.Worker | None = None
        self._draining = False
        self._drained_at = time.monotonic()
        self._stopped = threading.Event()

        middleware: list[Middleware] = [_Lifecycle(self), self._retries()]
        if embedded:
            self.broker = EmbeddedBroker(
                prefetch=settings.prefetch, new_consumer=self._new_consumer, middleware=middleware
            )
        else:
            self.broker = PurchaseBroker(
                settings, new_consumer=self._new_consumer, middleware=middleware
            )
        confirmation = Confirmation(
            OrderBook(self.database), self.trail, failures_limit=settings.audit_queue_limit // 10
        )
        self.actor = dramatiq.Actor(
            confirmation.confirm_purchases,
            broker=self.broker,
            actor_name=ACTOR_NAME,
            queue_name=settings.purchase_queue,
            priority=0,
            options={"throws": StoreError},  # failures have log lines of their own
        )

    def start(self, host: dramatiq.Worker) -> None:
        """Start what runs beside the threads of `host`, and watch those."""
        self._host = host
        self._flusher.start()
        self._scheduler.start()
        self._watchdog.start()
        log.info("worker.started", extra={"database": str(self.settings.database)})

    def drain(self) -> None:
        """Begin to stop: take nothing more, and bound how long work under way may last."""
        self._draining = True
        self._drained_at = time.monotonic()
        self._watchdog.stop()
        self._bound_statements(_STATEMENTS_SHARE)
        threading.Thread(target=self._backstop, name="backstop", daemon=True).start()
        for consumer in self._consumers:
            consumer.drain()

    def stop(self) -> None:
        """End the stop, when Dramatiq's consumers have acknowledged and closed."""
        self._bound_statements(1.0)
        self._scheduler.shutdown(wait=False)
        self._flusher.stop()
        self.trail.flush_quietly()
        close_database(self.database)
        seconds = round(time.monotonic() - self._drained_at, 1)
        log.info(
            "worker.stopped",
            extra={
                "seconds": seconds,
                "delivered": self.tally.delivered,
                "settled": self.tally.settled,
                "dead_lettered": self.tally.dead_lettered,
                "returned": self.tally.returned,
                "audit_unwritten": len(self.trail),
            },
        )
        if not self.tally.is_conserved:
            log.error("worker.not_conserved", extra={"tally": str(self.tally)})
        self._stopped.set()

    def _retries(self) -> HeldRetries:
        return HeldRetries(
            failure_of,
            clock=time.monotonic,
            min_seconds=self.settings.retry_min_seconds,
            max_seconds=self.settings.retry_max_seconds,
        )

    def _new_consumer(self, transport: Transport) -> BatchingConsumer[Purchase]:
        settings = self.settings
        consumer = BatchingConsumer(
            transport,
            partial(read_purchase, max_bytes=settings.max_event_bytes),
            queue_name=settings.purchase_queue,
            actor_name=ACTOR_NAME,
            breaker=Breaker(
                clock=time.monotonic,
                hold_seconds=settings.breaker_hold_seconds,
                probe_max_seconds=settings.probe_max_seconds,
            ),
            tally=self.tally,
            limits=Limits(
                batch_size=settings.batch_size,
                in_flight=settings.batches_in_flight,
                prefetch=settings.prefetch,
            ),
            suspicion=self._suspects,
        )
        if self._draining:
            consumer.drain()
        self._consumers.append(consumer)
        return consumer

    def _symptom(self) -> str | None:
        """Why this process cannot go on, if so."""
        host = self._host
        for thread in (*host.workers, *host.consumers.values()) if host else ():
            if not thread.is_alive():
                return f"{type(thread).__name__} {thread.name} has ended"
        # Dramatiq may have put a consumer that failed out of use; the newest is the one at work.
        limit = max(_STUCK_SECONDS, 3 * self.settings.statement_timeout_seconds)
        if self._consumers and self._consumers[-1].stuck_seconds() > limit:
            return f"nothing has moved for {limit:g} s"
        return None

    def _bound_statements(self, share: float) -> None:
        if isinstance(self.database, PostgresDatabase):
            self.database.hurry(self._drained_at + share * self.settings.shutdown_seconds)

    def _backstop(self) -> None:
        """End the process where its shutdown does not: what is unacknowledged comes again."""
        if self._stopped.wait(self.settings.shutdown_seconds + _BACKSTOP_GRACE_SECONDS):
            return
        log.error("worker.shutdown_abandoned", extra={"open": self.tally.open})
        time.sleep(_BACKSTOP_GRACE_SECONDS / 2)  # for that line to get out
        os._exit(_EXIT_ABANDONED)


class _Lifecycle(Middleware):
    def __init__(self, worker: PurchaseWorker) -> None:
        self._worker = worker

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        worker.worker_timeout = _THREAD_POLL_MILLISECONDS
        self._worker.start(worker)

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._worker.drain()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._worker.stop()


class ProcessLifecycle(Middleware):
    """Sees to the process itself: it never blocks on a log line, and ends with its master."""

    def __init__(self, settings: Settings) -> None:
        # Dramatiq replaces sys.stderr by a pipe to its master; descriptor 2 is still the terminal.
        target = handler(sys.stderr, settings.log_format, on_terminal=os.isatty(2))
        self._level = settings.log_level
        self._queue = LogQueue(target)

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002
        self._queue.start(self._level)
        stop_with_parent()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._queue.stop()
