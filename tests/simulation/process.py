"""One simulated worker process: the real consumer and retries, and Dramatiq's part played."""

from __future__ import annotations

from collections import Counter, deque

from dramatiq.broker import Broker, MessageProxy

from flashsale.batching import Batch, BatchingConsumer, Breaker, Failure, HeldRetries, Limits, Tally
from tests.simulation.clock import Clock
from tests.simulation.rabbitmq import FakeTransport, Rabbit
from tests.simulation.store import Fault, Store, StoreFailed, decode

LIMITS = Limits(batch_size=6, in_flight=2, prefetch=12, trial_size=2)
HOLD_SECONDS = 3.0
RETRY_MAX_SECONDS = 2.0
UNCLASSIFIED_ATTEMPTS = 5

_BROKER = Broker(middleware=[])


class Process:
    """A batch goes through three hands here: `running`, `executed`, and the consumer's again.

    Where a process is killed between two of them, or its channel is cut, they see it.
    """

    def __init__(
        self, name: str, rabbit: Rabbit, store: Store, clock: Clock, limits: Limits = LIMITS
    ) -> None:
        self.name = name
        self.limits = limits
        self.store = store
        self.tally = Tally()
        self.breaker = Breaker(clock=clock, hold_seconds=HOLD_SECONDS)
        self.transport = FakeTransport(rabbit, limits.prefetch)
        self.consumer = BatchingConsumer(
            self.transport,
            decode,
            queue_name="purchase",
            actor_name="confirm_purchases",
            breaker=self.breaker,
            tally=self.tally,
            limits=limits,
            clock=clock,
            wait=self._wait,
        )
        self.retries = HeldRetries(
            lambda error: (getattr(error, "failure", Failure.UNCLASSIFIED), str(error)),
            clock=clock,
            max_seconds=RETRY_MAX_SECONDS,
            unclassified_attempts=UNCLASSIFIED_ATTEMPTS,
        )
        self.draining = False
        self.running: deque[MessageProxy] = deque()
        self.executed: deque[tuple[MessageProxy, StoreFailed | None]] = deque()
        #: How often each event has failed here, alone, for an unknown cause.
        self.unclassified: Counter[bytes] = Counter()
        self.waits: list[float] = []

    def poll(self) -> MessageProxy | None:
        """One turn of the consumer's thread."""
        message = next(self.consumer)
        if message is not None:
            self.running.append(message)
        return message

    def execute(self, fault: Fault | None = None) -> int:
        """A worker thread runs the batch that waits longest. Returns its size."""
        message = self.running.popleft()
        batch = message.args[0]
        failed = None
        try:
            self.store.confirm(batch, fault)
        except StoreFailed as error:
            failed = error
            if error.failure is Failure.UNCLASSIFIED:
                self.unclassified.update(batch.items[index] for index in batch.undecided())
        self.executed.append((message, failed))
        return len(batch)

    def report(self, *, newest: bool = False) -> int:
        """Dramatiq's end of a message: the middleware first, then the consumer. Returns its size"""
        message, failed = self.executed.pop() if newest else self.executed.popleft()
        self.retries.after_process_message(_BROKER, message, exception=failed)
        self.consumer.ack(message)
        return len(message.args[0])

    def batches(self) -> list[Batch[bytes]]:
        """What has been handed out and not handed back."""
        messages = [*self.running, *(message for message, _ in self.executed)]
        return [message.args[0] for message in messages]

    def drain(self) -> None:
        self.draining = True
        self.consumer.drain()

    def close(self) -> None:
        """The end of a shutdown: workers have finished what they had begun, and no more."""
        while self.executed:
            self.report()
        self.consumer.close()

    def kill(self, *, lose_acks: bool = False) -> None:
        if self.transport.channel is not None:
            self.transport.channel.cut(lose_acks=lose_acks)

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
