"""What follows from a batch that comes back, and from a channel that is lost."""

from __future__ import annotations

import time

import pytest

from flashsale.batching import (
    DONE,
    BreakerState,
    Delivery,
    Failure,
)
from flashsale.batching.batcher import Acknowledgement
from tests.unit.batching.batcher_bench import (
    REFUSED,
    UNREADABLE,
    Bench,
    tags,
    working_bench,
)


@pytest.fixture
def bench() -> Bench:
    return working_bench()


# Verdicts


def test_each_verdict_has_its_own_consequence(bench: Bench) -> None:
    bench.arrive(3)
    batch = bench.hand_out()
    batch.verdicts = [DONE, REFUSED, None]
    batch.failure = Failure.TRANSIENT
    letters = bench.batcher.conclude(batch)

    assert [(letter.delivery.tag, letter.rejection) for letter in letters] == [(2, REFUSED)]
    assert letters[0].attempts == 1
    assert bench.acknowledgements() == [Acknowledgement(1, multiple=True)]
    assert tags(bench.hand_out()) == [3]


def test_a_batch_with_a_verdict_for_each_leaves_nothing_to_try_again(bench: Bench) -> None:
    bench.arrive(2)
    batch = bench.hand_out()
    batch.verdicts = [DONE, REFUSED]
    bench.batcher.conclude(batch)

    assert bench.tally.held == 0
    assert bench.sizes() == []


def test_two_that_fail_again_come_back_one_by_one(bench: Bench) -> None:
    bench.arrive(2)
    bench.fail(bench.hand_out(), Failure.TRANSIENT)
    bench.fail(bench.hand_out(), Failure.TRANSIENT)

    assert bench.sizes() == [1, 1]


def test_what_cannot_be_read_becomes_a_dead_letter_and_never_meets_a_worker(bench: Bench) -> None:
    deliveries = [bench.delivery(), bench.delivery(b"unreadable"), bench.delivery()]
    letters = bench.batcher.accept(deliveries)

    assert [(letter.delivery.tag, letter.rejection) for letter in letters] == [(2, UNREADABLE)]
    assert tags(bench.hand_out()) == [1, 3]


def test_what_the_broker_would_lose_in_a_restart_is_counted(bench: Bench) -> None:
    lost = [Delivery(2, b"good", persistent=False), Delivery(3, b"unreadable", persistent=False)]
    bench.batcher.accept([bench.delivery(), *lost])

    assert bench.tally.not_persistent == 2


def test_a_dead_letter_says_when_its_event_came_and_how_often_it_was_tried(bench: Bench) -> None:
    before = time.time()
    (unread,) = bench.batcher.accept([bench.delivery(b"unreadable")])
    bench.arrive(1)
    batch = bench.hand_out()
    batch.verdicts, batch.received_at = [REFUSED], 1_700_000_000.0
    (tried,) = bench.batcher.conclude(batch)

    assert unread.attempts == 0
    assert before <= unread.received_at <= time.time()
    assert (tried.attempts, tried.received_at) == (1, 1_700_000_000.0)


def test_a_delivery_stays_open_until_its_dead_letter_is_confirmed(bench: Bench) -> None:
    letters = bench.batcher.accept([bench.delivery(b"unreadable")])
    assert bench.acknowledgements() == []
    assert bench.tally.open == 1

    bench.batcher.settle_dead_lettered(letters)
    assert bench.acknowledgements() == [Acknowledgement(1, multiple=True)]
    assert bench.tally.dead_lettered == 1


def test_a_dead_letter_confirmed_twice_counts_once(bench: Bench) -> None:
    letters = bench.batcher.accept([bench.delivery(b"unreadable")])
    bench.batcher.settle_dead_lettered(letters)
    bench.batcher.settle_dead_lettered(letters)

    assert bench.tally.dead_lettered == 1
    assert bench.tally.reasons == {"unreadable": 1}
    assert len(bench.acknowledgements()) == 1


# Acknowledgements


def test_settled_batches_are_acknowledged_by_one_cumulative_tag(bench: Bench) -> None:
    bench.arrive(8)
    first, second = bench.hand_out(), bench.hand_out()
    bench.succeed(second)
    assert bench.acknowledgements() == [], "the first batch lies below it"

    bench.succeed(first)
    assert bench.acknowledgements() == [Acknowledgement(8, multiple=True)]
    assert bench.acknowledgements() == []


def test_above_a_gap_deliveries_are_acknowledged_one_by_one_after_a_second(bench: Bench) -> None:
    """One delivery that waits long must not fill the prefetch window with settled ones."""
    bench.acknowledgements()
    bench.arrive(6)
    bench.hand_out()
    bench.succeed(bench.hand_out())
    assert bench.acknowledgements() == []
    assert bench.batcher.next_due_at() == bench.clock() + 1.0, "the consumer wakes for it"

    bench.clock.advance(1.0)
    assert bench.acknowledgements() == [
        Acknowledgement(5, multiple=False),
        Acknowledgement(6, multiple=False),
    ]
    assert bench.batcher.next_due_at() == float("inf")


# Giving back, and the loss of a channel


def test_surrender_gives_back_the_collected_and_the_held_but_nothing_under_way(
    bench: Bench,
) -> None:
    bench.arrive(3)
    bench.fail(bench.hand_out(), Failure.TRANSIENT, hold_seconds=9.0)
    bench.arrive(8)
    under_way = [bench.hand_out(), bench.hand_out()]
    bench.arrive(2)

    assert bench.batcher.surrender() == [1, 2, 3, 12, 13]
    assert bench.batcher.surrender() == []

    for batch in under_way:
        bench.succeed(batch)
    assert bench.acknowledgements() == [Acknowledgement(11, multiple=True)]
    assert bench.sizes() == []


def test_a_delivery_with_a_dead_letter_on_its_way_is_not_given_back(bench: Bench) -> None:
    letters = bench.batcher.accept([bench.delivery(b"unreadable")])
    assert bench.batcher.surrender() == []

    bench.batcher.settle_dead_lettered(letters)
    assert bench.tally.dead_lettered == 1


def test_a_batch_of_a_lost_channel_touches_nothing_on_the_next(bench: Bench) -> None:
    """Its tags are the same numbers there, and name other deliveries."""
    bench.arrive(4)
    old = bench.hand_out()
    bench.new_channel()
    bench.arrive(4)
    new = bench.hand_out()
    assert tags(old) == tags(new)

    old.verdicts = [DONE, DONE, REFUSED, None]
    old.repeats = 2
    old.failure = Failure.TRANSIENT
    assert bench.batcher.conclude(old) == []
    assert bench.tally.repeats == 0
    assert bench.acknowledgements() == []
    assert bench.batcher.surrender() == []
    assert bench.tally.stale == 4

    bench.succeed(new)
    assert bench.acknowledgements() == [Acknowledgement(4, multiple=True)]


def test_a_batch_of_a_lost_channel_still_tells_of_an_outage(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.arrive(1)
    old = bench.hand_out()
    bench.new_channel()
    bench.fail(old, Failure.SYSTEM)

    assert bench.breaker.state is BreakerState.OPEN
    assert [vars(record)["cause"] for record in caplog.records] == ["system"]


def test_batches_of_a_lost_channel_keep_their_workers_busy(bench: Bench) -> None:
    bench.arrive(8)
    old = bench.hand_out()
    bench.hand_out()
    bench.new_channel()
    bench.arrive(4)
    assert bench.sizes() == []

    bench.succeed(old)
    assert bench.sizes() == [4]


def test_a_dead_letter_confirmed_after_its_channel_was_lost_settles_nothing(bench: Bench) -> None:
    letters = bench.batcher.accept([bench.delivery(b"unreadable")])
    bench.new_channel()
    bench.arrive(1)
    bench.batcher.settle_dead_lettered(letters)

    assert letters[0].ledger.is_closed, "by which the writer knows not to write it"
    assert bench.acknowledgements() == []
    assert bench.tally.dead_lettered == 0
    assert bench.tally.stale == 1


def test_a_new_channel_starts_with_nothing_collected_or_held(bench: Bench) -> None:
    bench.arrive(1)
    bench.fail(bench.hand_out(), Failure.TRANSIENT)
    bench.arrive(2)
    bench.new_channel()

    assert not bench.batcher.is_ready()
    assert bench.sizes() == []
    assert bench.tally.returned == 3


def test_every_delivery_is_counted_after_every_step(bench: Bench) -> None:
    """Delivered is what was settled, dead-lettered or returned, and what is still open."""
    batcher, tally = bench.batcher, bench.tally

    def counts() -> tuple[int, ...]:
        assert tally.is_conserved, tally
        return tally.delivered, tally.settled, tally.dead_lettered, tally.returned, tally.open

    bench.arrive(6)
    assert counts() == (6, 0, 0, 0, 6)
    batch = bench.hand_out()
    batch.verdicts = [DONE, REFUSED, DONE, None]
    batch.repeats = 1
    batch.failure = Failure.TRANSIENT
    letters = batcher.conclude(batch)
    bench.acknowledgements()
    assert counts() == (6, 2, 0, 0, 4)
    assert tally.repeats == 1
    batcher.settle_dead_lettered(letters)
    bench.acknowledgements()
    assert counts() == (6, 2, 1, 0, 3)
    batcher.surrender()
    assert counts() == (6, 2, 1, 3, 0)
    bench.arrive(2)
    assert counts() == (8, 2, 1, 3, 2)
    bench.new_channel()
    assert counts() == (8, 2, 1, 5, 0)


def test_what_is_counted_of_each_batch_adds_up(bench: Bench) -> None:
    for _ in range(2):
        bench.arrive(4)
        batch = bench.hand_out()
        batch.verdicts, batch.repeats = [DONE, DONE, DONE, None], 2
        bench.fail(batch, Failure.TRANSIENT, hold_seconds=9.0)
        bench.arrive(1)
        bench.succeed(bench.hand_out())
        bench.batcher.surrender()

    tally = bench.tally
    assert (tally.batches, tally.held, tally.repeats, tally.returned) == (4, 2, 4, 2)


def test_what_comes_too_late_adds_up(bench: Bench) -> None:
    for _ in range(2):
        letters = bench.batcher.accept([bench.delivery(b"unreadable")])
        bench.arrive(1)
        batch = bench.hand_out()
        bench.new_channel()
        bench.succeed(batch)
        current = bench.batcher.accept([bench.delivery(b"unreadable")])
        bench.batcher.settle_dead_lettered([*letters, *current])

    assert bench.tally.stale == 4
    assert bench.tally.dead_lettered == 2
