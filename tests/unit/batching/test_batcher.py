"""What goes into the next batch, and what follows from one that comes back."""

from __future__ import annotations

import math

import pytest

from flashsale.batching import (
    BreakerState,
    Failure,
)
from tests.unit.batching.batcher_bench import (
    COLLECTING,
    LIMITS,
    Bench,
    tags,
    working_bench,
)


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    return working_bench(getattr(request, "param", LIMITS))


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


@pytest.mark.parametrize("bench", [COLLECTING], indirect=True)
def test_it_collects_for_a_moment_behind_one_batch_and_behind_two_until_one_is_back(
    bench: Bench,
) -> None:
    collected_at = bench.clock() + COLLECTING.collect_seconds
    assert bench.batcher.collects_until() < bench.clock()
    bench.arrive(1)
    first = bench.hand_out()
    assert bench.batcher.collects_until() == collected_at

    bench.arrive(LIMITS.batch_size)
    assert bench.batcher.collects_until() < bench.clock()

    bench.hand_out()
    assert bench.batcher.collects_until() == math.inf
    bench.arrive(LIMITS.batch_size)
    assert bench.batcher.collects_until() == math.inf

    bench.succeed(first)
    assert bench.batcher.collects_until() < bench.clock()


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
