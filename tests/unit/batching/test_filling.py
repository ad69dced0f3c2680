"""When a batch waits to be full, and when the queue is asked whether there is a backlog."""

from __future__ import annotations

import pytest

from tests.unit.batching.batcher_bench import FILLING, LIMITS, Bench, working_bench


@pytest.fixture
def bench() -> Bench:
    return working_bench(FILLING)


def take_out_and_back(bench: Bench) -> None:
    bench.arrive(1)
    bench.succeed(bench.hand_out())


def test_while_a_backlog_comes_fast_a_batch_waits_to_be_full(bench: Bench) -> None:
    bench.batcher.filling.see(LIMITS.batch_size)
    left_at = bench.clock()
    take_out_and_back(bench)
    bench.arrive(1)
    assert bench.sizes() == []
    assert bench.batcher.next_due_at() == left_at + 1 / FILLING.fill_pace

    bench.arrive(2)
    bench.clock.advance(2.9 / FILLING.fill_pace)
    assert bench.sizes() == []

    bench.arrive(1)
    assert bench.sizes() == [4]


def test_where_deliveries_come_no_faster_than_the_pace_none_waits_for_another(
    bench: Bench,
) -> None:
    bench.batcher.filling.see(LIMITS.batch_size)
    for _ in range(3):
        take_out_and_back(bench)
        bench.clock.advance(1 / FILLING.fill_pace)
        bench.arrive(1)
        assert bench.batcher.is_ready()
        bench.succeed(bench.hand_out())
        bench.clock.advance(1 / FILLING.fill_pace)


@pytest.mark.parametrize("gone", ["never there", "gone", "of an earlier channel"])
def test_however_fast_they_come_without_a_backlog_no_delivery_waits_for_another(
    bench: Bench, gone: str
) -> None:
    if gone != "never there":
        bench.batcher.filling.see(LIMITS.batch_size)
    if gone == "gone":
        bench.batcher.filling.see(LIMITS.batch_size - 1)
    take_out_and_back(bench)
    if gone == "of an earlier channel":
        bench.new_channel()

    bench.arrive(3)

    assert bench.sizes() == [3]


def test_whether_there_is_a_backlog_is_asked_once_a_batch_has_come_and_now_and_then(
    bench: Bench,
) -> None:
    filling = bench.batcher.filling
    bench.arrive(LIMITS.batch_size - 1)
    assert not filling.asks()
    bench.arrive(1)
    assert filling.asks()

    filling.see(0)
    bench.arrive(LIMITS.batch_size)
    assert not filling.asks()
    bench.clock.advance(FILLING.ask_seconds)
    assert filling.asks()

    filling.see(0)
    bench.clock.advance(FILLING.ask_seconds)
    assert not filling.asks()


def test_while_there_is_a_backlog_it_is_asked_for_again_however_little_comes(
    bench: Bench,
) -> None:
    filling = bench.batcher.filling
    bench.arrive(LIMITS.batch_size)
    assert filling.asks()
    filling.see(LIMITS.batch_size)

    assert not filling.asks()
    bench.clock.advance(FILLING.ask_seconds)
    assert filling.asks()


def test_a_question_is_not_asked_again_before_its_answer_but_on_another_channel(
    bench: Bench,
) -> None:
    """pika would keep each until the one before is answered."""
    filling = bench.batcher.filling
    bench.arrive(LIMITS.batch_size)
    assert filling.asks()
    bench.clock.advance(FILLING.ask_seconds)
    bench.arrive(LIMITS.batch_size)
    assert not filling.asks()

    bench.new_channel()
    assert filling.asks()
