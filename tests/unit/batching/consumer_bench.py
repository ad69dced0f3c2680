"""A consumer on a bench: one process, its broker, its store and its clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from flashsale.batching import (
    BatchingConsumer,
    Breaker,
    BreakerState,
    Limits,
    Suspicion,
    Tally,
)
from tests.simulation.clock import Clock
from tests.simulation.process import LIMITS, Process
from tests.simulation.rabbitmq import FakeChannel, FakeTransport, Rabbit
from tests.simulation.store import Fault, Store, decode


@dataclass(frozen=True)
class Bench:
    """One process, its broker and its store."""

    rabbit: Rabbit
    store: Store
    clock: Clock
    process: Process

    @property
    def channel(self) -> FakeChannel:
        channel = self.process.transport.channel
        assert channel is not None
        return channel

    def turn(self) -> int | None:
        """One turn of the consumer's thread. Returns the size of the batch handed out."""
        if self.process.transport.channel is not None:
            self.channel.deliver()
        message = self.process.poll()
        return None if message is None else len(message.args[0])

    def work(self, fault: Fault | None = None) -> None:
        """The workers do all that they have been handed."""
        while self.process.running:
            self.process.execute(fault)
            self.process.report()

    def start(self) -> None:
        """Up to the first successful probe."""
        assert self.turn() == 0
        self.work()
        self.turn()
        assert self.channel.consuming

    def settle(self) -> None:
        """Until all that is in the queue has been dealt with."""
        for _ in range(100):
            self.turn()
            self.work()
            if not self.rabbit.ready and not self.rabbit.unacknowledged:
                return
        pytest.fail("the queue does not become empty")


def new_bench() -> Bench:
    rabbit, store, clock = Rabbit(), Store(), Clock()
    return Bench(rabbit, store, clock, Process("P1", rabbit, store, clock, LIMITS))


def started_bench() -> Bench:
    """With one event settled, and so with the trial behind it."""
    bench = new_bench()
    bench.rabbit.publish(b"good-first")
    bench.start()
    bench.settle()
    assert bench.process.breaker.state is BreakerState.CLOSED
    return bench


def real_time_consumer(
    transport: FakeTransport, suspicion: Suspicion | None = None
) -> BatchingConsumer[bytes]:
    """A consumer by itself, on the clock of the machine and with its own wait."""
    return BatchingConsumer(
        transport,
        decode,
        queue_name="purchase",
        actor_name="confirm_purchases",
        breaker=Breaker(clock=time.monotonic),
        tally=Tally(),
        limits=Limits(),
        suspicion=suspicion,
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What the consumer has logged: each event with its cause, or with the queue it is about."""
    return [
        (record.message, str(vars(record).get("cause") or vars(record).get("queue")))
        for record in caplog.records
    ]
