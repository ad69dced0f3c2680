"""The actor's work, and what it means for a delivery: where orders and batching meet."""

from __future__ import annotations

from flashsale.audit import AuditEntry, AuditTrail, now
from flashsale.batching import DONE, Batch, Failure, Rejection, Verdict
from flashsale.errors import (
    EventRefused,
    StoreError,
    SystemFault,
    TransientFault,
    UnclassifiedFault,
)
from flashsale.orders import Confirmed, OrderBook, Outcome, Refused
from flashsale.purchases import Purchase


class Confirmation:
    """Turns batches of purchases into orders and queues their audit events. Thread-safe."""

    def __init__(self, orders: OrderBook, trail: AuditTrail, *, failures_limit: int) -> None:
        self._orders = orders
        self._trail = trail
        self._failures_limit = failures_limit

    def confirm_purchases(self, batch: Batch[Purchase]) -> None:
        """Write the batch's orders; its verdicts say what became of each purchase.

        Raises:
            StoreError: purchases without a verdict are to be tried again.
        """
        outcomes: list[Outcome | None] = [None] * len(batch)
        try:
            self._orders.confirm(batch.items, outcomes)
        except StoreError as error:
            self._record_failure(batch, outcomes, error)
            raise
        except Exception as error:  # noqa: BLE001
            # Text and traceback of an unforeseen error can hold values of an event.
            raise UnclassifiedFault(f"{type(error).__name__} at {_origin(error)}") from None
        finally:
            # Also on the way out of an error: what was committed is on record at once.
            self._record_confirmed(batch, outcomes)
            batch.verdicts = [_verdict(outcome) for outcome in outcomes]

    def _record_confirmed(self, batch: Batch[Purchase], outcomes: list[Outcome | None]) -> None:
        processed_at = now()
        events = [
            AuditEntry.confirmed(purchase.sale_id, purchase.user_id, outcome.order_id, processed_at)
            for purchase, outcome in zip(batch.items, outcomes, strict=True)
            if isinstance(outcome, Confirmed)
        ]
        if events:
            self._trail.record(events)

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


def read_purchase(body: bytes, max_bytes: int) -> Purchase | Rejection:
    """The purchase in a message's body, or why there is none."""
    try:
        return Purchase.parse(body, max_bytes=max_bytes)
    except EventRefused as refused:
        return Rejection(refused.reason)


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
        return Rejection(outcome.reason, outcome.sqlstate)
    return DONE


def _origin(error: BaseException) -> str:
    """Where an error was raised, as file:line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
