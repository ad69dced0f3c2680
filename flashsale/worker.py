"""Builds the parts of one worker process, and owns the order in which they start and stop."""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq
from apscheduler.schedulers.background import BackgroundScheduler
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from flashsale import exit_codes
from flashsale.audit import AuditTrail
from flashsale.batching import (
    BatchingConsumer,
    Breaker,
    BreakerState,
    HeldRetries,
    Limits,
    Tally,
    Transport,
)
from flashsale.brokers.hosting import NewBroker
from flashsale.brokers.rabbitmq import PurchaseBroker
from flashsale.confirmation import Confirmation, failure_of, read_purchase
from flashsale.database import (
    CLIENT_GRACE_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    PostgresDatabase,
    close_database,
    open_database,
)
from flashsale.errors import StoreError
from flashsale.metrics import WorkerMetrics
from flashsale.orders import OrderBook
from flashsale.purchases import Purchase
from flashsale.reconcile import Reconciler
from flashsale.reporting import counts_of, histograms_of, resources, tally_now
from flashsale.reports import Report, State
from flashsale.schedule import SizeTrigger, add_interval_jobs
from flashsale.settings import Settings
from flashsale.suspects import Suspects
from flashsale.urls import exposures
from flashsale.watchdog import Backstop, Watchdog

log = logging.getLogger(__name__)

ACTOR_NAME = "confirm_purchases"

# Dramatiq's threads look this often whether they are to stop. Its own second, for the threads and
# again for the process, would take most of the five that a stop may last.
_THREAD_POLL_MILLISECONDS = 250
# What statements under way may take of the time for a shutdown; the rest is for the audit trail.
_STATEMENTS_SHARE = 0.6
_BACKSTOP_GRACE_SECONDS = 0.5
# A turn of the consumer that RabbitMQ keeps waiting everywhere stays below it.
_STUCK_SECONDS = 30.0
_STATEMENTS_OF_A_BATCH = 3  # the insert, what became of the others, and one more
_LAST_LINE_SECONDS = 0.25


class PurchaseWorker:
    """One process's worker: its broker and actor, its database, its audit trail.

    Making one connects to nothing and starts nothing. Dramatiq's worker drives :meth:`start`,
    :meth:`drain` and :meth:`stop` when it boots, begins to shut down, and has shut down. The
    latter two are harmless when repeated, or before a start.

    `new_broker` makes the broker that brings the events, RabbitMQ's unless told otherwise.
    """

    def __init__(self, settings: Settings, *, new_broker: NewBroker = PurchaseBroker) -> None:
        self.settings = settings
        self.database = open_database(
            settings.database, statement_timeout_seconds=settings.statement_timeout_seconds
        )
        self.metrics = WorkerMetrics()
        self.trail = AuditTrail(
            self.database,
            metrics=self.metrics,
            batch_size=settings.audit_batch_size,
            limit=settings.audit_queue_limit,
        )
        self.tally = Tally()
        self._flusher = SizeTrigger(self.trail.flush_quietly)
        self.trail.on_full = self._flusher.flush_soon
        self._reconciler = Reconciler(self.database, self.metrics)
        self._scheduler = BackgroundScheduler()
        add_interval_jobs(
            self._scheduler,
            settings,
            flush=self.trail.flush_quietly,
            reconcile=self._reconciler.run_quietly,
        )
        # To Dramatiq one queue: one consumer takes them all, and so one ledger, one breaker and one
        # set of limits hold for the process however many there are.
        self._queue_name = ",".join(settings.purchase_queues)
        self._watchdog = Watchdog(self._symptom)
        self._backstop = Backstop(
            settings.shutdown_seconds + _BACKSTOP_GRACE_SECONDS,
            self._save_trail,
            account=self._account,
            end=self._abandon,
        )
        self._consumers: list[BatchingConsumer[Purchase]] = []
        self._host: dramatiq.Worker | None = None
        self._drained_at: float | None = None
        self._stopped = False
        self._stop_seconds = 0.0

        middleware: list[Middleware] = [_Lifecycle(self), self._retries()]
        self.broker = new_broker(settings, new_consumer=self._new_consumer, middleware=middleware)
        self._suspects = (
            Suspects(Path(settings.state_folder))
            if self.broker.redelivers_beyond_the_process
            else None
        )
        self._confirmation = Confirmation(
            OrderBook(self.database),
            self.trail,
            failures_limit=settings.audit_queue_limit // 10,
            metrics=self.metrics,
        )
        self.actor = dramatiq.Actor(
            self._confirmation.confirm_purchases,
            broker=self.broker,
            actor_name=ACTOR_NAME,
            queue_name=self._queue_name,
            priority=0,
            options={"throws": StoreError},  # failures have log lines of their own
        )

    def start(self, host: dramatiq.Worker) -> None:
        """Start what runs beside the threads of `host`, and watch those."""
        self._host = host
        self._flusher.start()
        self._scheduler.start()
        self._watchdog.start()
        for cause in exposures(self.settings.database, self.settings.broker_urls):
            log.warning("connection.exposed", extra={"cause": cause})
        log.info("worker.started", extra={"database": str(self.settings.database)})

    def drain(self) -> None:
        """Begin to stop: take nothing more, and bound how long work under way may last."""
        if self._drained_at is not None:
            return
        self._drained_at = time.monotonic()
        self._watchdog.stop()
        self._backstop.start()
        self._bound_statements(
            self._drained_at + _STATEMENTS_SHARE * self.settings.shutdown_seconds
        )
        for consumer in self._consumers:
            consumer.drain()

    def stop(self) -> None:
        """End the stop, when Dramatiq's consumers have acknowledged and closed."""
        if self._stopped:
            return
        self._stopped = True
        begun = self._drained_at or time.monotonic()
        self._bound_statements(begun + self.settings.shutdown_seconds)
        for step in (
            self._watchdog.stop,
            self._stop_scheduler,
            self._flusher.stop,
            self.trail.flush_quietly,
            partial(close_database, self.database),
        ):
            try:
                step()
            except Exception as error:  # noqa: BLE001  # the other steps matter all the same
                cause = type(error).__name__  # its text may hold a row's values
                log.error("worker.stop_failed", extra={"cause": cause})  # noqa: TRY400
        self._backstop.stop()
        self._stop_seconds = time.monotonic() - begun
        account = {"seconds": round(self._stop_seconds, 1), **self._account()}
        log.info("worker.stopped", extra=account)
        if not self.tally.is_conserved:
            log.error("worker.not_conserved", extra={"tally": str(self.tally)})

    def report(self) -> Report:
        """How this process is and what it has counted. Thread-safe."""
        tally = tally_now(self.tally)
        consumer = self._consumers[-1] if self._consumers else None
        counts = counts_of(tally) | resources() | self.metrics.events.copy()
        counts |= {
            "audit_queue": len(self.trail),
            "audit_recorded": self.trail.recorded,
            "audit_refused": self.trail.refused,
            "audit_written": self.trail.written,
            "audit_dropped": self.trail.dropped,
            "audit_reconciled": self._reconciler.written,
            "last_commit_at": self._confirmation.last_commit_at,
            "last_event_at": self._confirmation.last_event_at,
            "last_event_age": self._confirmation.last_event_age,
            "outage_seconds": consumer.outage_seconds if consumer else 0.0,
            "shutdown_seconds": self._stop_seconds,
            "failed_letter_attempts": self.broker.failed_letter_attempts,
        }
        return Report(
            pid=os.getpid(),
            at=time.monotonic(),
            state=self._state(),
            symptom=self._symptom() if self._drained_at is None else None,
            is_consuming=consumer is not None and consumer.is_consuming,
            missing_queues=list(consumer.missing_queues) if consumer else [],
            breaker=(consumer.breaker_state if consumer else BreakerState.OPEN).value,
            counts=counts,
            reasons=tally.reasons,
            faults=[(*labels, count) for labels, count in self.metrics.faults.copy().items()],
            histograms=histograms_of(self.metrics),
        )

    def _state(self) -> State:
        if self._stopped:
            return "stopped"
        return "running" if self._drained_at is None else "draining"

    def _stop_scheduler(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _retries(self) -> HeldRetries:
        return HeldRetries(
            failure_of,
            clock=time.monotonic,
            min_seconds=self.settings.retry_min_seconds,
            max_seconds=self.settings.retry_max_seconds,
        )

    def _new_consumer(self, transport: Transport) -> BatchingConsumer[Purchase]:
        settings = self.settings
        max_bytes = settings.max_event_bytes
        count_unknown_keys = partial(self.metrics.count, "unknown_keys")
        consumer = BatchingConsumer(
            transport,
            # Not a partial: with keywords it costs more than a call.
            lambda body: read_purchase(body, max_bytes, count_unknown_keys),
            queue_name=self._queue_name,
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
        if self._drained_at is not None:
            consumer.drain()
        self._consumers.append(consumer)
        return consumer

    def _symptom(self) -> str | None:
        """Why this process cannot go on, if so."""
        host = self._host
        for thread in (*host.workers, *host.consumers.values()) if host else ():
            if not thread.is_alive():
                return f"{type(thread).__name__} {thread.name} has ended"
        if not self.broker.can_dead_letter:
            return "the thread that writes dead letters has ended"
        # Dramatiq may have put a consumer that failed out of use; the newest is the one at work.
        limit = _stuck_seconds(self.settings)
        if self._consumers and self._consumers[-1].stuck_seconds() > limit:
            return f"nothing has moved for {limit:g} s"
        limit += self.settings.audit_interval_seconds
        if self._host is not None and time.monotonic() - self.trail.moved_at > limit:
            return f"the audit trail has not been flushed for {limit:g} s"
        return None

    def _bound_statements(self, until: float) -> None:
        if isinstance(self.database, PostgresDatabase):
            self.database.hurry(until)

    def _account(self) -> dict[str, object]:
        """What became of all deliveries. Takes no lock: a shutdown that hangs may hold any."""
        tally = tally_now(self.tally)
        return {
            "delivered": tally.delivered,
            "settled": tally.settled,
            "dead_lettered": tally.dead_lettered,
            "returned": tally.returned,
            "open": tally.open,
            "audit_unwritten": len(self.trail),
        }

    def _save_trail(self) -> None:
        self._bound_statements(time.monotonic() + _BACKSTOP_GRACE_SECONDS)
        self.trail.flush_quietly()

    def _abandon(self, code: int) -> None:
        """End a shutdown that takes too long: what is unacknowledged comes again."""
        if self._suspects is not None:
            # Nothing shows that an event is to blame, as it may be where the watchdog ends.
            self._suspects.forgive()
        os._exit(code)


def _stuck_seconds(settings: Settings) -> float:
    """After how long without a move a process cannot be merely waiting for the database."""
    statement = settings.statement_timeout_seconds + CLIENT_GRACE_SECONDS
    connect = CONNECT_TIMEOUT_SECONDS * len(settings.database.hosts)
    wait = settings.database.pool_timeout_seconds + connect
    return max(_STUCK_SECONDS, wait + _STATEMENTS_OF_A_BATCH * statement)


class _Lifecycle(Middleware):
    def __init__(self, worker: PurchaseWorker) -> None:
        self._worker = worker

    def before_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        worker.worker_timeout = _THREAD_POLL_MILLISECONDS
        try:
            self._worker.start(worker)
        except Exception as error:  # noqa: BLE001  # Dramatiq would go on with what did start
            log.critical("worker.start_failed", extra={"cause": f"{type(error).__name__}: {error}"})
            self._worker.stop()
            time.sleep(_LAST_LINE_SECONDS)  # for the lines to get out
            sys.exit(exit_codes.FAILURE)

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._worker.drain()

    def before_worker_thread_shutdown(self, broker: Broker, thread: Any) -> None:  # noqa: ARG002
        # The last of these threads has recorded all there is, and RabbitMQ may still keep the
        # consumer waiting.
        self._worker.trail.flush_quietly()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._worker.stop()
