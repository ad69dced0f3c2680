"""What goes into the next batch, and what follows from one that comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flashsale.batching import (
    DONE,
    Batch,
    Batcher,
    Breaker,
    BreakerState,
    Delivery,
    Failure,
    Limits,
    Rejection,
    Tally,
)
from flashsale.batching.batcher import Acknowledgement
from tests.simulation.clock import Clock

# A second batch leaves at once, unless a test is about that.
LIMITS = Limits(batch_size=4, in_flight=2, collect_seconds=0.0, prefetch=20, trial_size=2)
COLLECTING = replace(LIMITS, collect_seconds=0.5)
UNREADABLE = Rejection("unreadable")
REFUSED = Rejection("constraint", "23514")


class Bench:
    """A batcher with the parts around it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.clock = Clock()
        self.breaker = Breaker(clock=self.clock)
        self.tally = Tally()
        self.batcher = Batcher(
            lambda body: UNREADABLE if body == b"unreadable" else body.decode(),
            breaker=self.breaker,
            limits=limits,
            tally=self.tally,
            clock=self.clock,
        )
        self._last_tag = 0

    def pass_probe(self) -> None:
        self.breaker.start_probe()
        self.breaker.end_probe(failed_because=None)

    def arrive(self, count: int) -> None:
        self.batcher.collect([self.delivery() for _ in range(count)])

    def delivery(self, body: bytes = b"good") -> Delivery:
        self._last_tag += 1
        return Delivery(self._last_tag, body)

    def new_channel(self) -> None:
        self.batcher.begin_channel()
        self._last_tag = 0

    def hand_out(self) -> Batch[str]:
        batch = self.batcher.next_batch()
        assert batch is not None
        return batch

    def sizes(self) -> list[int]:
        """The sizes of all batches that can be handed out now."""
        sizes = []
        while (batch := self.batcher.next_batch()) is not None:
            sizes.append(len(batch))
        return sizes

    def succeed(self, batch: Batch[str]) -> None:
        batch.settle_all()
        batch.failure = None
        self.batcher.conclude(batch)

    def fail(self, batch: Batch[str], failure: Failure, hold_seconds: float = 0.0) -> None:
        batch.failure = failure
        batch.explanation = failure.value
        batch.hold_until = self.clock() + hold_seconds
        self.batcher.conclude(batch)

    def acknowledgements(self) -> list[Acknowledgement]:
        return list(self.batcher.acknowledgements())


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    """With the first trial behind it."""
    bench = Bench(getattr(request, "param", LIMITS))
    bench.pass_probe()
    bench.breaker.succeed()
    return bench


def tags(batch: Batch[str]) -> list[int]:
    return [delivery.tag for delivery in batch.deliveries]


# What is handed out


def test_one_delivery_alone_leaves_at_once(bench: Bench) -> None:
    bench.arrive(1)

    assert bench.batcher.is_ready()
    assert bench.sizes() == [1]
    assert not bench.batcher.is_ready()


def test_while_all_workers_are_busy_deliveries_are_collected(bench: Bench) -> None:
    bench.arrive(1)
    first = bench.hand_out()
    bench.arrive(1)
    bench.hand_out()
    for _ in range(3):
        bench.arrive(1)
        assert bench.batcher.next_batch() is None

    bench.succeed(first)
    assert bench.sizes() == [3]


@pytest.mark.parametrize("bench", [COLLECTING], indirect=True)
def test_while_a_batch_is_with_the_workers_the_next_leaves_only_full(bench: Bench) -> None:
    bench.arrive(1)
    first = bench.hand_out()
    bench.arrive(LIMITS.batch_size - 1)
    assert not bench.batcher.is_ready()
    assert bench.sizes() == []

    bench.arrive(1)
    assert bench.sizes() == [LIMITS.batch_size]

    bench.arrive(1)
    bench.succeed(first)
    assert bench.sizes() == []


@pytest.mark.parametrize("bench", [COLLECTING], indirect=True)
def test_as_the_last_batch_comes_back_what_was_collected_leaves_at_once(bench: Bench) -> None:
    bench.arrive(1)
    first = bench.hand_out()
    bench.arrive(2)

    bench.succeed(first)

    assert bench.sizes() == [2]


@pytest.mark.parametrize("bench", [COLLECTING], indirect=True)
def test_beside_a_batch_that_takes_long_the_next_leaves_as_it_is(bench: Bench) -> None:
    """What waits for a lock must not keep all others waiting."""
    bench.arrive(1)
    bench.hand_out()
    bench.arrive(2)
    assert bench.batcher.next_due_at() == bench.clock() + COLLECTING.collect_seconds

    bench.clock.advance(COLLECTING.collect_seconds)

    assert bench.batcher.next_due_at() == float("inf")
    assert bench.sizes() == [2]


def test_a_batch_is_no_larger_than_its_limit(bench: Bench) -> None:
    bench.arrive(LIMITS.batch_size + 1)

    assert bench.sizes() == [LIMITS.batch_size, 1]


def test_deliveries_leave_in_the_order_of_their_arrival(bench: Bench) -> None:
    bench.arrive(6)

    assert tags(bench.hand_out()) == [1, 2, 3, 4]
    assert tags(bench.hand_out()) == [5, 6]


def test_what_is_wanted_fills_the_next_batch_or_the_prefetch(bench: Bench) -> None:
    """Waiting for more than the next batch can hold would keep the workers waiting."""
    bench.arrive(1)
    assert bench.batcher.wanted() == LIMITS.batch_size - 1

    bench.sizes()
    bench.arrive(4)
    bench.sizes()
    bench.arrive(3)
    assert bench.batcher.wanted() == LIMITS.prefetch - 3, "all workers are busy"


def test_a_due_retry_goes_before_what_is_collected(bench: Bench) -> None:
    """Otherwise an unbroken stream of new deliveries could keep it waiting for ever."""
    bench.arrive(2)
    bench.fail(bench.hand_out(), Failure.TRANSIENT, hold_seconds=1.0)
    bench.arrive(1)
    assert tags(bench.hand_out()) == [3]

    bench.arrive(1)
    bench.clock.advance(1.0)
    retry = bench.hand_out()
    assert tags(retry) == [1, 2]
    assert retry.attempts == 1


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.UNCLASSIFIED])
def test_a_batch_that_fails_again_is_tried_in_halves(bench: Bench, failure: Failure) -> None:
    """So many may never keep a time limit, or one of them fails the others."""
    bench.arrive(4)
    bench.fail(bench.hand_out(), failure)
    again = bench.hand_out()
    assert tags(again) == [1, 2, 3, 4]
    bench.fail(again, failure)

    halves = [bench.hand_out(), bench.hand_out()]
    assert [tags(half) for half in halves] == [[1, 2], [3, 4]]
    assert [half.attempts for half in halves] == [2, 2]


def test_retries_that_fail_for_ever_leave_every_other_turn_to_what_is_new(bench: Bench) -> None:
    bench.arrive(1)
    bench.fail(bench.hand_out(), Failure.UNCLASSIFIED)
    bench.arrive(8)
    turns = []
    for _ in range(4):
        batch = bench.hand_out()
        turns.append(tags(batch))
        bench.fail(batch, Failure.UNCLASSIFIED, hold_seconds=1000 if len(batch) > 1 else 0.0)

    assert turns == [[1], [2, 3, 4, 5], [1], [6, 7, 8, 9]]


def test_one_delivery_alone_is_tried_again_as_it_is(bench: Bench) -> None:
    bench.arrive(1)
    for _ in range(5):
        bench.fail(bench.hand_out(), Failure.TRANSIENT)

    assert tags(bench.hand_out()) == [1]


def test_a_retry_is_not_tried_before_it_is_due(bench: Bench) -> None:
    bench.arrive(1)
    bench.fail(bench.hand_out(), Failure.TRANSIENT, hold_seconds=1.0)

    bench.clock.advance(0.9)
    assert bench.sizes() == []
    assert bench.batcher.next_due_at() == pytest.approx(bench.clock() + 0.1)


def test_nothing_is_due_while_no_worker_is_free(bench: Bench) -> None:
    """The consumer would spin if a retry that cannot be handed out ended its wait."""
    bench.arrive(1)
    bench.fail(bench.hand_out(), Failure.TRANSIENT, hold_seconds=1.0)
    bench.arrive(8)
    assert bench.sizes() == [4, 4]

    assert bench.batcher.next_due_at() == float("inf")


# Trial


def test_before_the_first_probe_nothing_is_handed_out() -> None:
    bench = Bench()
    bench.arrive(1)

    assert bench.sizes() == []
    assert not bench.batcher.is_ready()


def test_after_a_probe_one_small_batch_is_tried() -> None:
    bench = Bench()
    bench.arrive(9)
    bench.pass_probe()

    trial = bench.hand_out()
    assert len(trial) == LIMITS.trial_size
    assert bench.sizes() == [], "one at a time"

    bench.succeed(trial)
    assert bench.breaker.state is BreakerState.CLOSED
    assert bench.sizes() == [4, 3]


def test_a_large_retry_is_split_for_the_trial_and_nothing_of_it_is_forgotten(bench: Bench) -> None:
    bench.arrive(4)
    bench.fail(bench.hand_out(), Failure.SYSTEM)
    bench.pass_probe()

    trial = bench.hand_out()
    assert tags(trial) == [1, 2]
    bench.succeed(trial)
    assert tags(bench.hand_out()) == [3, 4]


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.UNCLASSIFIED])
def test_a_trial_that_is_unlucky_neither_ends_the_outage_nor_begins_one(failure: Failure) -> None:
    bench = Bench()
    bench.arrive(9)
    bench.pass_probe()
    bench.fail(bench.hand_out(), failure, hold_seconds=1.0)

    assert bench.breaker.state is BreakerState.TRIAL
    assert bench.sizes() == [LIMITS.trial_size]


def test_after_an_outage_the_held_do_not_wait_for_their_backoff(bench: Bench) -> None:
    """The breaker has said that it is over."""
    bench.arrive(1)
    bench.fail(bench.hand_out(), Failure.SYSTEM, hold_seconds=10.0)
    bench.pass_probe()

    assert bench.sizes() == [1]


def test_a_system_failure_stops_all_batches_at_once(bench: Bench) -> None:
    bench.arrive(8)
    first = bench.hand_out()
    bench.fail(first, Failure.SYSTEM)

    assert bench.breaker.state is BreakerState.OPEN
    assert bench.sizes() == []
    assert bench.batcher.wanted() == LIMITS.prefetch - 4


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


def test_what_cannot_be_read_becomes_a_dead_letter_and_never_meets_a_worker(bench: Bench) -> None:
    deliveries = [bench.delivery(), bench.delivery(b"unreadable"), bench.delivery()]
    letters = bench.batcher.collect(deliveries)

    assert [(letter.delivery.tag, letter.rejection) for letter in letters] == [(2, UNREADABLE)]
    assert tags(bench.hand_out()) == [1, 3]


def test_what_the_broker_would_lose_in_a_restart_is_counted(bench: Bench) -> None:
    lost = [Delivery(2, b"good", persistent=False), Delivery(3, b"unreadable", persistent=False)]
    bench.batcher.collect([bench.delivery(), *lost])

    assert bench.tally.not_persistent == 2


def test_a_delivery_stays_open_until_its_dead_letter_is_confirmed(bench: Bench) -> None:
    letters = bench.batcher.collect([bench.delivery(b"unreadable")])
    assert bench.acknowledgements() == []
    assert bench.tally.open == 1

    bench.batcher.confirm(letters)
    assert bench.acknowledgements() == [Acknowledgement(1, multiple=True)]
    assert bench.tally.dead_lettered == 1


def test_a_dead_letter_confirmed_twice_counts_once(bench: Bench) -> None:
    letters = bench.batcher.collect([bench.delivery(b"unreadable")])
    bench.batcher.confirm(letters)
    bench.batcher.confirm(letters)

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
    letters = bench.batcher.collect([bench.delivery(b"unreadable")])
    assert bench.batcher.surrender() == []

    bench.batcher.confirm(letters)
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


def test_a_batch_of_a_lost_channel_still_tells_of_an_outage(bench: Bench) -> None:
    bench.arrive(1)
    old = bench.hand_out()
    bench.new_channel()
    bench.fail(old, Failure.SYSTEM)

    assert bench.breaker.state is BreakerState.OPEN


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
    letters = bench.batcher.collect([bench.delivery(b"unreadable")])
    bench.new_channel()
    bench.arrive(1)
    bench.batcher.confirm(letters)

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
    batcher.confirm(letters)
    bench.acknowledgements()
    assert counts() == (6, 2, 1, 0, 3)
    batcher.surrender()
    assert counts() == (6, 2, 1, 3, 0)
    bench.arrive(2)
    assert counts() == (8, 2, 1, 3, 2)
    bench.new_channel()
    assert counts() == (8, 2, 1, 5, 0)
