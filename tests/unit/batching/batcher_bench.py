"""A batcher on a bench, with the parts around it."""

from __future__ import annotations

from dataclasses import replace

from flashsale.batching import (
    Batch,
    Batcher,
    Breaker,
    Delivery,
    Failure,
    Limits,
    Rejection,
    Tally,
)
from flashsale.batching.batcher import Acknowledgement
from tests.simulation.clock import Clock

# A batch leaves at once, unless a test is about that.
LIMITS = Limits(
    batch_size=4,
    in_flight=2,
    collect_seconds=0.0,
    prefetch=20,
    trial_size=2,
)
COLLECTING = replace(LIMITS, collect_seconds=0.5)
FILLING = replace(LIMITS, fill_pace=20.0, ask_seconds=2.0)
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
        self.batcher.accept([self.delivery() for _ in range(count)])

    def delivery(self, body: bytes = b"good") -> Delivery:
        self._last_tag += 1
        return Delivery(self._last_tag, body)

    def new_channel(self) -> None:
        self.batcher.end_channel()
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


def working_bench(limits: Limits = LIMITS) -> Bench:
    """With the first trial behind it."""
    bench = Bench(limits)
    bench.pass_probe()
    bench.breaker.succeed()
    return bench


def tags(batch: Batch[str]) -> list[int]:
    return [delivery.tag for delivery in batch.deliveries]
