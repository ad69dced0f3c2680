"""What a failed batch means: held and tried again, given up only in one exceptional case."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from dramatiq import Message
from dramatiq.broker import Broker, MessageProxy

from flashsale.batching import (
    DONE,
    UNCLASSIFIED_REASON,
    Batch,
    Delivery,
    Failure,
    HeldRetries,
    Ledger,
    Rejection,
    reminders,
)
from tests.simulation.clock import Clock

BROKER = Broker(middleware=[])
ATTEMPTS = 5
GIVEN_UP = Rejection(UNCLASSIFIED_REASON)


class Failed(Exception):
    """An actor's error, which says of itself what it means."""

    def __init__(self, failure: Failure, cause: str = "a failure") -> None:
        super().__init__(f"{cause}: {failure.value}")
        self.failure = failure


def failure_of(error: BaseException) -> tuple[Failure, str]:
    assert isinstance(error, Failed)
    return error.failure, str(error)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def retries(clock: Clock) -> HeldRetries:
    return HeldRetries(
        failure_of, clock=clock, min_seconds=0.1, max_seconds=10.0, unclassified_attempts=ATTEMPTS
    )


def batch_of(count: int) -> Batch[int]:
    return Batch(Ledger(), range(count), [Delivery(tag, b"") for tag in range(1, count + 1)])


def process(
    retries: HeldRetries,
    batch: Batch[int],
    failure: Failure | None = None,
    cause: str = "a failure",
) -> None:
    """Dramatiq's hook, after the actor has returned or raised."""
    message = MessageProxy(
        Message(queue_name="q", actor_name="a", args=(batch,), kwargs={}, options={})
    )
    error = None if failure is None else Failed(failure, cause)
    retries.after_process_message(BROKER, message, exception=error)


def succeed(retries: HeldRetries) -> None:
    batch = batch_of(1)
    batch.settle_all()
    process(retries, batch)


def fail(retries: HeldRetries, batch: Batch[int], *failures: Failure) -> Batch[int]:
    """One attempt after the other, while other batches succeed. Returns the batch tried last."""
    for failure in failures:
        if batch.failure is not None:
            batch = batch.rest()
        succeed(retries)
        process(retries, batch, failure)
    return batch


def told(caplog: pytest.LogCaptureFixture, *fields: str) -> list[tuple[Any, ...]]:
    """The lines that were logged: level, event and these fields."""
    lines = [
        (line.levelno, line.message, *(getattr(line, field) for field in fields))
        for line in caplog.records
    ]
    caplog.clear()
    return lines


def test_a_batch_with_a_verdict_for_each_delivery_has_not_failed(retries: HeldRetries) -> None:
    batch = batch_of(2)
    batch.verdicts = [DONE, Rejection("unreadable")]
    process(retries, batch)

    assert batch.failure is None


def test_a_success_clears_the_failure_that_a_split_has_inherited(retries: HeldRetries) -> None:
    batch = batch_of(2)
    process(retries, batch, Failure.SYSTEM)
    first, _ = batch.split(1)
    first.settle_all()
    process(retries, first)

    assert first.failure is None


@pytest.mark.parametrize("failure", Failure)
def test_a_failure_is_named_in_words_that_are_safe_to_log(
    retries: HeldRetries, failure: Failure
) -> None:
    batch = batch_of(1)
    process(retries, batch, failure)

    assert batch.failure is failure
    assert batch.explanation == f"a failure: {failure.value}"


def test_a_verdict_that_an_actor_forgot_counts_as_an_unknown_error(retries: HeldRetries) -> None:
    batch = batch_of(2)
    batch.verdicts = [DONE, None]
    process(retries, batch)

    assert batch.failure is Failure.UNCLASSIFIED
    assert batch.explanation == "no verdict was given"


def test_the_waits_grow_from_the_shortest_to_the_longest(
    retries: HeldRetries, clock: Clock
) -> None:
    batch = batch_of(1)
    waits = []
    for _ in range(20):
        process(retries, batch, Failure.TRANSIENT)
        waits.append(batch.hold_until - clock())
        batch = batch.rest()

    assert 0.1 <= waits[0] <= 0.2
    assert min(waits[10:]) >= 5.0
    assert max(waits) <= 10.0


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.SYSTEM])
def test_bad_luck_never_counts_against_a_delivery(retries: HeldRetries, failure: Failure) -> None:
    batch = fail(retries, batch_of(1), *[failure] * 100)

    assert batch.verdicts == [None]


def test_what_fails_alone_for_an_unknown_cause_while_others_succeed_is_given_up(
    retries: HeldRetries,
) -> None:
    batch = fail(retries, batch_of(1), *[Failure.UNCLASSIFIED] * (ATTEMPTS - 1))
    assert batch.verdicts == [None]

    batch = fail(retries, batch, Failure.UNCLASSIFIED)
    assert batch.verdicts == [GIVEN_UP]
    assert isinstance(batch.verdicts[0], Rejection)
    assert batch.verdicts[0].explanation == "a failure: unclassified"


def test_what_fails_beside_others_for_an_unknown_cause_is_not_given_up(
    retries: HeldRetries,
) -> None:
    """An error of the process (no memory left) strikes a whole batch of good deliveries."""
    batch = fail(retries, batch_of(2), *[Failure.UNCLASSIFIED] * ATTEMPTS * 3)

    assert batch.verdicts == [None, None]


def test_failures_of_other_kinds_are_not_counted_among_the_unknown(retries: HeldRetries) -> None:
    """A delivery that was in two outages has its five attempts all the same."""
    outage = [Failure.SYSTEM, Failure.TRANSIENT] * ATTEMPTS
    unknown = [Failure.UNCLASSIFIED] * (ATTEMPTS - 1)
    batch = fail(retries, batch_of(1), *outage, *unknown, *outage)
    assert batch.verdicts == [None]

    batch = fail(retries, batch, Failure.UNCLASSIFIED)
    assert batch.verdicts == [GIVEN_UP]


def test_nothing_is_given_up_where_nothing_succeeds(retries: HeldRetries) -> None:
    """An error that nobody knows and that strikes all is no delivery's fault."""
    batch = batch_of(1)
    for _ in range(ATTEMPTS * 3):
        process(retries, batch, Failure.UNCLASSIFIED)
        assert batch.verdicts == [None]
        batch = batch.rest()

    succeed(retries)
    process(retries, batch, Failure.UNCLASSIFIED)
    assert batch.verdicts == [GIVEN_UP]


def test_only_the_undecided_are_given_up(retries: HeldRetries) -> None:
    batch = fail(retries, batch_of(2), *[Failure.UNCLASSIFIED] * (ATTEMPTS - 1)).rest()
    succeed(retries)
    batch.verdicts = [DONE, None]
    process(retries, batch, Failure.UNCLASSIFIED)

    assert batch.verdicts == [DONE, GIVEN_UP]


def test_a_probe_that_fails_is_neither_held_nor_given_up(retries: HeldRetries) -> None:
    probe = Batch[int].probe()
    process(retries, probe, Failure.UNCLASSIFIED)

    assert probe.failure is Failure.UNCLASSIFIED
    assert probe.hold_until == 0.0


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.UNCLASSIFIED])
def test_the_cause_for_which_batches_are_held_is_told_once_a_minute(
    retries: HeldRetries, clock: Clock, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    fields = ("failure", "cause", "undecided", "failed_attempts")
    batch = batch_of(3)
    batch.verdicts = [DONE, None, None]
    process(retries, batch, failure)
    assert told(caplog, *fields) == [
        (logging.WARNING, "batch.held", failure.value, f"a failure: {failure.value}", 2, 0)
    ]

    batch = batch.rest()
    clock.advance(59)
    process(retries, batch, failure)
    assert told(caplog) == []

    clock.advance(1)
    process(retries, batch, failure)
    assert told(caplog, *fields) == [
        (logging.WARNING, "batch.held", failure.value, f"a failure: {failure.value}", 2, 1)
    ]


def test_each_cause_is_told_for_itself(
    retries: HeldRetries, caplog: pytest.LogCaptureFixture
) -> None:
    for cause in ("a deadlock", "a lost connection", "a deadlock"):
        process(retries, batch_of(1), Failure.TRANSIENT, cause)

    assert [cause for _, _, cause in told(caplog, "cause")] == [
        "a deadlock: transient",
        "a lost connection: transient",
    ]


def test_of_endless_causes_the_one_told_longest_ago_is_forgotten(
    retries: HeldRetries,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is remembered of them has a bound; it is told too often rather than never."""
    monkeypatch.setattr(reminders, "_MOST_REMEMBERED", 2)
    for cause in ("old", "new"):
        process(retries, batch_of(1), Failure.TRANSIENT, cause)
        clock.advance(30)
    process(retries, batch_of(1), Failure.TRANSIENT, "old")  # now the latest of the two
    process(retries, batch_of(1), Failure.TRANSIENT, "third")
    told(caplog)

    for cause in ("third", "old", "new"):
        process(retries, batch_of(1), Failure.TRANSIENT, cause)

    assert told(caplog, "cause") == [(logging.WARNING, "batch.held", "new: transient")]


def test_what_is_given_up_is_told_with_its_cause_and_is_not_held(
    retries: HeldRetries, caplog: pytest.LogCaptureFixture
) -> None:
    batches = [
        fail(retries, batch_of(1), *[Failure.UNCLASSIFIED] * (ATTEMPTS - 1)) for _ in range(3)
    ]
    told(caplog)

    for batch, cause in zip(batches, ("a failure", "a failure", "another"), strict=True):
        succeed(retries)
        last = batch.rest()
        process(retries, last, Failure.UNCLASSIFIED, cause)
        assert last.verdicts == [GIVEN_UP]

    assert told(caplog, "cause") == [
        (logging.ERROR, "deliveries.given_up", "a failure: unclassified"),
        (logging.ERROR, "deliveries.given_up", "another: unclassified"),
    ]


def test_the_failures_of_the_system_are_left_to_the_breaker_to_tell(
    retries: HeldRetries, caplog: pytest.LogCaptureFixture
) -> None:
    """Of batches and of probes; it has a line for the whole outage."""
    process(retries, batch_of(1), Failure.SYSTEM)
    process(retries, Batch[int].probe(), Failure.TRANSIENT)

    assert told(caplog) == []
