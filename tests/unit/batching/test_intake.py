"""Deliveries that come again are watched, and those that kill are set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flashsale.batching import (
    DONE,
    POISON_REASON,
    Batch,
    Batcher,
    Breaker,
    Delivery,
    Intake,
    Limits,
    Rejection,
    Tally,
)
from tests.simulation.clock import Clock


class Memory:
    """What a :class:`~flashsale.batching.Suspicion` keeps on disk, in memory."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def deaths(self, body: bytes) -> int:
        return self.counts[body]

    def begin(self, bodies: Sequence[bytes]) -> None:
        self.counts.update(bodies)

    def end(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            del self.counts[body]


def again(number: int) -> Delivery:
    return Delivery(number, b"body-%d" % number, redelivered=True)


def filled(memory: Memory, count: int) -> Intake[int]:
    intake: Intake[int] = Intake(memory, Tally())
    for number in range(1, count + 1):
        assert intake.add(number, again(number)) is None
    return intake


def take(intake: Intake[int], room: int = 500) -> Sequence[int]:
    handful = intake.take(room)
    assert handful is not None
    assert handful.watched
    return handful.items


def test_first_deliveries_are_trusted_and_leave_no_note() -> None:
    memory = Memory()
    intake: Intake[int] = Intake(memory, Tally())
    intake.add(1, Delivery(1, b"first"))

    handful = intake.take(500)

    assert handful is not None
    assert not handful.watched
    assert not memory.counts


def test_all_that_wait_are_counted_whatever_is_known_of_them() -> None:
    memory = Memory()
    memory.counts[b"body-3"] = 1
    intake: Intake[int] = Intake(memory, Tally())
    for delivery in (Delivery(1, b"first"), again(2), again(3)):
        intake.add(delivery.tag, delivery)

    assert len(intake) == 3


def test_deliveries_that_come_again_are_counted() -> None:
    tally = Tally()
    intake: Intake[int] = Intake(Memory(), tally)
    for delivery in (Delivery(1, b"first"), again(2), again(3)):
        intake.add(1, delivery)

    assert tally.redelivered == 2


def test_deliveries_that_come_again_run_in_small_batches_that_grow_while_they_survive() -> None:
    memory = Memory()
    intake = filled(memory, 40)
    sizes = []
    while len(intake):
        items = take(intake)
        sizes.append(len(items))
        intake.survived([again(item).body for item in items])

    assert sizes == [8, 16, 16]
    assert not memory.counts


def test_a_killer_that_comes_to_a_warm_process_runs_in_a_small_batch() -> None:
    intake = filled(Memory(), 40)
    while len(intake):
        intake.survived([again(item).body for item in take(intake)])
    for number in range(1, 41):
        intake.add(number, again(number))

    assert len(take(intake)) == 8


def test_a_lost_channel_brings_back_the_small_batches() -> None:
    intake = filled(Memory(), 40)
    intake.survived([again(item).body for item in take(intake)])
    intake.clear()
    for number in range(1, 41):
        intake.add(number, again(number))

    assert len(take(intake)) == 8


def test_batches_that_were_not_full_vouch_for_no_larger_ones() -> None:
    """Nor do deliveries that run alone: nothing as large as the next batch has survived."""
    intake = filled(Memory(), 40)
    for _ in range(10):
        intake.survived([again(item).body for item in take(intake, room=1)])

    assert len(take(intake)) == 8


def test_those_of_a_batch_that_died_run_alone_in_the_next_process() -> None:
    memory = Memory()
    first_process = filled(memory, 9)
    take(first_process)

    next_process = filled(memory, 9)

    assert [len(take(next_process)) for _ in range(9)] == [1] * 9
    assert memory.counts[b"body-9"] == 1  # it was not in the batch that died
    assert memory.counts[b"body-1"] == 2


def test_after_three_deaths_under_watch_a_delivery_is_poison() -> None:
    memory = Memory()
    for _ in range(3):
        take(filled(memory, 1))

    intake: Intake[int] = Intake(memory, Tally())

    assert intake.add(1, again(1)) == Rejection(POISON_REASON)
    assert len(intake) == 0


def test_without_a_memory_none_is_watched() -> None:
    intake: Intake[int] = Intake(None, Tally())
    intake.add(1, again(1))

    handful = intake.take(500)

    assert handful is not None
    assert not handful.watched


def batcher_of(memory: Memory) -> Batcher[bytes]:
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.start_probe()
    breaker.end_probe(failed_because=None)
    breaker.succeed()
    return Batcher(
        lambda body: body,
        breaker=breaker,
        limits=Limits(collect_seconds=0.0),
        tally=Tally(),
        clock=clock,
        suspicion=memory,
    )


def finish(batcher: Batcher[bytes], batch: Batch[bytes] | None) -> None:
    assert batch is not None
    batch.verdicts = [DONE] * len(batch)
    batcher.conclude(batch)


def test_a_watched_batch_has_no_other_beside_it() -> None:
    """Else the one that kills would take the others along, and their deliveries for suspects."""
    batcher = batcher_of(Memory())
    batcher.accept([Delivery(1, b"fresh")])
    fresh = batcher.next_batch()
    batcher.accept([again(2), Delivery(3, b"later")])

    assert batcher.next_batch() is None
    finish(batcher, fresh)
    watched = batcher.next_batch()
    assert watched is not None
    assert list(watched.items) == [b"body-2"]
    assert batcher.next_batch() is None
    finish(batcher, watched)
    later = batcher.next_batch()
    assert later is not None
    assert list(later.items) == [b"later"]


def test_a_watched_batch_that_fails_has_survived_all_the_same() -> None:
    memory = Memory()
    batcher = batcher_of(memory)
    batcher.accept([again(1)])
    batch = batcher.next_batch()
    assert batch is not None
    assert memory.counts == {b"body-1": 1}

    batcher.conclude(batch)  # without a verdict: it is held

    assert not memory.counts


def test_poison_is_dead_lettered_as_it_arrives() -> None:
    memory = Memory()
    memory.counts[b"body-1"] = 3
    batcher = batcher_of(memory)

    (letter,) = batcher.accept([again(1), again(2)])

    assert letter.delivery == again(1)
    assert letter.rejection == Rejection(POISON_REASON)


def test_poison_is_known_until_its_dead_letter_is_confirmed_and_then_starts_afresh() -> None:
    """Whoever publishes it again has mended the cause, or takes three deaths more."""
    memory = Memory()
    memory.counts[b"body-1"] = 3
    batcher = batcher_of(memory)
    letters = batcher.accept([again(1)])
    assert memory.counts == {b"body-1": 3}

    batcher.settle_dead_lettered(letters)

    assert not memory.counts


def test_a_confirm_from_before_the_channel_was_lost_leaves_poison_known() -> None:
    """Its delivery comes again, and must not kill again."""
    memory = Memory()
    memory.counts[b"body-1"] = 3
    batcher = batcher_of(memory)
    early = batcher.accept([again(1)])
    batcher.end_channel()

    batcher.settle_dead_lettered(early)
    letters = batcher.accept([again(1)])

    assert [letter.rejection for letter in letters] == [Rejection(POISON_REASON)]
