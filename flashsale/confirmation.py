"""The actor's work, and what it means for a delivery: where orders and batching meet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.batching import DONE, Batch, Failure, Rejection, Verdict
from flashsale.errors import (
    EventRefused,
    StoreError,
    SystemFault,
    TransientFault,
    UnclassifiedFault,
)
from flashsale.metrics import WorkerMetrics
from flashsale.orders import Confirmed, OrderBook, Outcome, Refused
from flashsale.purchases import Purchase

log = logging.getLogger(__name__)

# Of a batch, every so manieth row says when its purchase was made, beginning with the first:
# reading each date would cost as much as all else in the row.
_LAG_SAMPLE = 8
# A timestamp further from our clock says nothing of how long the event took.
_SKEW_SECONDS = 86_400.0


class Confirmation:
    """Turns batches of purchases into orders and queues their audit events. Thread-safe."""

    def __init__(
        self,
        orders: OrderBook,
        trail: AuditTrail,
        *,
        failures_limit: int,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._orders = orders
        self._metrics = metrics or WorkerMetrics()
        #: When an order was last written, in seconds since the epoch; 0 where none was.
        self.last_commit_at = 0.0
        #: When the first event of the latest batch was made, likewise; and its age at its verdict.
        self.last_event_at = 0.0
        self.last_event_age = 0.0
        self._trail = trail
        self._failures_limit = failures_limit

    def confirm_purchases(self, batch: Batch[Purchase]) -> None:
        """Write the batch's orders; its verdicts say what became of each purchase.

        Raises:
            StoreError: purchases without a verdict are to be tried again.
        """
        outcomes: list[Outcome | None] = [None] * len(batch)
        try:
            with self._metrics.database("probe" if batch.is_probe else "confirm"):
                self._orders.confirm(batch.items, outcomes)
        except StoreError as error:
            self._record_failure(batch, outcomes, error)
            raise
        except Exception as error:  # noqa: BLE001
            # Text and traceback of an unforeseen error can hold values of an event.
            raise UnclassifiedFault(f"{type(error).__name__} at {_origin(error)}") from None
        finally:
            # Also on the way out of an error: what was committed is on record at once.
            confirmed = self._record_confirmed(batch, outcomes)
            batch.verdicts = [_verdict(outcome) for outcome in outcomes]
            batch.repeats = batch.verdicts.count(DONE) - confirmed
            if not batch.is_probe:
                self._count(batch, confirmed)

    def _record_confirmed(self, batch: Batch[Purchase], outcomes: list[Outcome | None]) -> int:
        """Queue the audit events of the new orders. Returns their number."""
        processed_at = now()
        events = [
            AuditEntry.confirmed(
                purchase.sale_id,
                purchase.user_id,
                outcome.order_id,
                processed_at,
                None if position % _LAG_SAMPLE else purchase.occurred_at,
            )
            for position, (purchase, outcome) in enumerate(zip(batch.items, outcomes, strict=True))
            if isinstance(outcome, Confirmed)
        ]
        if events:
            self._trail.record(events)
        return len(events)

    def _count(self, batch: Batch[Purchase], confirmed: int) -> None:
        now = time.time()
        seconds = max(0.0, now - batch.received_at)
        self._metrics.batch_events.observe(len(batch))
        self._metrics.batch_seconds.observe(seconds)
        self._look_at_timestamp(batch.items[0], now)
        if confirmed:
            self.last_commit_at = now
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "batch.confirmed",
                extra={
                    "events": len(batch),
                    "confirmed": confirmed,
                    "duplicates": batch.repeats,
                    "undecided": len(batch.undecided()),
                    "failed_attempts": batch.attempts,
                    "seconds": round(seconds, 4),
                },
            )

    def _look_at_timestamp(self, purchase: Purchase, now: float) -> None:
        """Count what one timestamp says; it stands for all of its batch.

        Reading a date for each would cost more than the rest.
        """
        occurred_at = purchase.occurred_at
        if occurred_at is None:
            state = "missing" if purchase.timestamp is None else "unreadable"
        else:
            self.last_event_at = occurred_at.timestamp()
            self.last_event_age = max(0.0, now - self.last_event_at)
            state = "good" if abs(now - self.last_event_at) <= _SKEW_SECONDS else "skewed"
            # Bounded, so that no made-up year decides the sum.
            self._metrics.event_age_seconds.observe(min(self.last_event_age, _SKEW_SECONDS))
        self._metrics.count(f"timestamps.{state}")

    def _record_failure(
        self, batch: Batch[Purchase], outcomes: list[Outcome | None], error: StoreError
    ) -> None:
        # Bounded, so that in a long outage these cannot displace the record of written orders.
        if batch.attempts or len(self._trail) >= self._failures_limit:
            return
        failed_at = now()
        self._trail.record(
            AuditEntry.failed(purchase, error, failed_at)
            for purchase, outcome in zip(batch.items, outcomes, strict=True)
            if outcome is None
        )


def read_purchase(
    body: bytes, max_bytes: int, on_unknown_keys: Callable[[], object]
) -> Purchase | Rejection:
    """The purchase in a message's body, or why there is none; see :meth:`Purchase.parse`."""
    try:
        return Purchase.parse(body, max_bytes=max_bytes, on_unknown_keys=on_unknown_keys)
    except EventRefused as refused:
        return Rejection(refused.reason, explanation=refused.explanation)


def failure_of(error: BaseException) -> tuple[Failure, str]:
    """What an actor's exception says about its batch, and the same in words safe to log."""
    if isinstance(error, TransientFault):
        return Failure.TRANSIENT, str(error)
    if isinstance(error, SystemFault):
        return Failure.SYSTEM, str(error)
    return Failure.UNCLASSIFIED, str(error) if isinstance(error, StoreError) else type(
        error
    ).__name__


def _verdict(outcome: Outcome | None) -> Verdict | None:
    if outcome is None:
        return None
    if isinstance(outcome, Refused):
        return Rejection(outcome.reason, outcome.sqlstate, outcome.explanation)
    return DONE


def _origin(error: BaseException) -> str:
    """Where an error was raised, as file:line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
