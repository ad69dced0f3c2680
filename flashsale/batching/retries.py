"""Decides what a failed batch means. It does no I/O: the consumer carries the decision out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from flashsale.batching.batch import DONE, Batch, Failure, Rejection
from flashsale.batching.breaker import backoff_seconds
from flashsale.batching.reminders import Reminders

log = logging.getLogger(__name__)

#: The reason of a delivery that alone fails for an unknown cause while others succeed.
UNCLASSIFIED_REASON = "unclassified"


class HeldRetries(Middleware):
    """Takes the place of Dramatiq's ``Retries``, which publishes a copy and acknowledges the
    original even where that publish failed.

    A failed batch stays held and unacknowledged. Bad luck is tried again after a backoff, without
    limit, and never counts against a delivery. The one exception: a delivery that was alone in its
    statement, and failed `unclassified_attempts` times with an unclassified error while others
    succeeded, gets the verdict `unclassified`, so that it cannot be held for ever.

    Either is logged with its cause, once a minute for each; the failures of the system are the
    breaker's to tell.

    `failure_of` tells what an actor's exception means, and in words that are safe to log. It must
    be thread-safe, as this is.
    """

    def __init__(
        self,
        failure_of: Callable[[BaseException], tuple[Failure, str]],
        *,
        clock: Callable[[], float],
        min_seconds: float = 0.1,
        max_seconds: float = 10.0,
        unclassified_attempts: int = 5,
    ) -> None:
        self._failure_of = failure_of
        self._clock = clock
        self._min_seconds = min_seconds
        self._max_seconds = max_seconds
        self._unclassified_attempts = unclassified_attempts
        # Only ever compared for "grew since", so a lost update between threads does no harm.
        self._settled = 0
        self._reminders = Reminders(clock)

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:
        batch: Batch[Any] = message.args[0]
        self._settled += batch.verdicts.count(DONE)
        batch.failure = None
        if exception is None and None not in batch.verdicts:
            return
        if exception is None:
            # The actor forgot some: as much an unknown error as an exception of its own would be.
            batch.failure, batch.explanation = Failure.UNCLASSIFIED, "no verdict was given"
        else:
            batch.failure, batch.explanation = self._failure_of(exception)
        if batch.is_probe:
            return
        if batch.failure is Failure.UNCLASSIFIED:
            self._give_up_where_hopeless(batch)
        if batch.failure is not Failure.SYSTEM:
            self._tell_what_is_held(batch, batch.failure)
        batch.hold_until = self._clock() + backoff_seconds(
            batch.attempts, self._min_seconds, self._max_seconds
        )

    def _give_up_where_hopeless(self, batch: Batch[Any]) -> None:
        batch.unclassified_failures += 1
        if batch.progress_at_failure is None:
            batch.progress_at_failure = self._settled
        undecided = batch.undecided()
        if len(undecided) > 1:
            return  # which of them it is shows when they come again in halves
        others_succeed = self._settled > batch.progress_at_failure
        if others_succeed and batch.unclassified_failures >= self._unclassified_attempts:
            batch.verdicts[undecided[0]] = Rejection(
                UNCLASSIFIED_REASON, explanation=batch.explanation
            )
            if self._reminders.is_due(("deliveries.given_up", batch.explanation)):
                log.error("deliveries.given_up", extra={"cause": batch.explanation})

    def _tell_what_is_held(self, batch: Batch[Any], failure: Failure) -> None:
        undecided = len(batch.undecided())
        if undecided and self._reminders.is_due(("batch.held", batch.explanation)):
            log.warning(
                "batch.held",
                extra={
                    "failure": failure.value,
                    "cause": batch.explanation,
                    "undecided": undecided,
                    "failed_attempts": batch.attempts,
                },
            )
