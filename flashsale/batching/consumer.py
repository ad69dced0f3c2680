"""The consumer that Dramatiq drives: it moves deliveries between a channel and the batcher."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy

from flashsale.batching.batch import Batch, Rejection
from flashsale.batching.batcher import Batcher
from flashsale.batching.breaker import Breaker, BreakerState
from flashsale.batching.intake import Suspicion
from flashsale.batching.limits import Limits
from flashsale.batching.opening import Opening
from flashsale.batching.tally import Tally
from flashsale.batching.transport import Channel, ChannelLost, Letter, Transport

T = TypeVar("T")

log = logging.getLogger(__name__)

_DRAIN_POLL_SECONDS = 0.05
# While a batch is collected, what arrives is looked at this often: little would come of it sooner.
_GATHER_SECONDS = 0.01
_LETTERS_AT_CLOSE_SECONDS = 2.0


class BatchingConsumer(Consumer, Generic[T]):
    """Hands an actor all deliveries that have already arrived as one Dramatiq message.

    One delivery alone leaves at once. Under load, while the workers are busy, batches grow by
    themselves; and while a backlog waits behind them, each may wait a moment to be full, see
    :class:`~flashsale.batching.Limits`.

    Dramatiq calls ``next()`` on the consumer's thread, :meth:`ack` and :meth:`nack` on the
    workers'. All that touches the channel or the ledger happens in ``next()`` (and in
    :meth:`close`, after that thread has ended), so neither needs a lock. It reconnects by itself;
    the loss of a connection never leaves it.

    `decode` turns a body into the actor's item, or into the :class:`Rejection` that
    dead-letters it. It must not raise.
    """

    def __init__(
        self,
        transport: Transport,
        decode: Callable[[bytes], T | Rejection],
        *,
        queue_name: str,
        actor_name: str,
        breaker: Breaker,
        tally: Tally,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
        suspicion: Suspicion | None = None,
    ) -> None:
        self._transport = transport
        self._queue_name = queue_name
        self._actor_name = actor_name
        self._breaker = breaker
        self._tally = tally
        self._limits = limits
        self._clock = clock
        self._interrupted = threading.Event()
        self._wait = wait or self._interrupted.wait
        self._batcher = Batcher(
            decode, breaker=breaker, limits=limits, tally=tally, clock=clock, suspicion=suspicion
        )
        self._channel: Channel | None = None
        self._consuming = False
        self._draining = False
        self._opening = Opening(
            transport, tally, queue_name=queue_name, clock=clock, wait=self._wait
        )
        self._moved_at = clock()
        # Filled by other threads; a deque's append and popleft are atomic.
        self._processed: deque[Batch[T]] = deque()
        self._confirmed: deque[Sequence[Letter]] = deque()

    def ack(self, message: MessageProxy) -> None:
        """Take a batch back from its worker; its verdicts say what becomes of it."""
        self._processed.append(message.args[0])
        self._wake()

    nack = ack

    def drain(self) -> None:
        """Hand out nothing more, and give back what no worker has begun. Thread-safe."""
        self._draining = True
        self._interrupted.set()
        self._wake()

    def stuck_seconds(self) -> float:
        """How long its thread, or all of the workers it feeds, have not moved. Thread-safe."""
        now = self._clock()
        return max(now - self._moved_at, now - (self._batcher.waiting_since or now))

    @property
    def is_consuming(self) -> bool:
        """Whether the messages of all its queues come to it now. Thread-safe."""
        return self._consuming and not self.missing_queues

    @property
    def missing_queues(self) -> Sequence[str]:
        """Queues that cannot be used now, though others can. Thread-safe."""
        return self._transport.missing_queues

    @property
    def breaker_state(self) -> BreakerState:
        """Whether its work can succeed at present. Thread-safe."""
        return self._breaker.state

    @property
    def outage_seconds(self) -> float:
        """For how long, in all, its work was known not to succeed. Thread-safe."""
        return self._breaker.open_seconds

    def __next__(self) -> MessageProxy | None:
        self._moved_at = self._clock()
        try:
            # Without a channel as well: that a worker is free again must not wait for one.
            self._take_back()
            if self._channel is None:
                self._channel = self._open_channel()
                if self._channel is None:
                    return None
            batch = self._step(self._channel)
        except ChannelLost as loss:
            self._lose_channel(loss)
            return None
        return None if batch is None else self._message(batch)

    def close(self) -> None:
        """Carry out what is decided and close, once Dramatiq has ended the consumer's thread."""
        self._draining = True
        # Dead letters that are confirmed now need no second copy later.
        self._transport.close(_LETTERS_AT_CLOSE_SECONDS)
        if self._channel is None:
            return
        try:
            self._stop_and_hand_back(self._channel)
            self._take_back()
            self._acknowledge(self._channel)
        except ChannelLost as loss:
            log.warning("broker.connection_lost", extra={"cause": str(loss)})
        self._close_channel()

    def _step(self, channel: Channel) -> Batch[T] | None:
        self._acknowledge(channel)
        if self._draining or self._breaker.hold_is_over:
            self._stop_and_hand_back(channel)
        elif not self._consuming and self._breaker.state is not BreakerState.OPEN:
            channel.start_consuming()
            self._consuming = True

        if not self._draining and self._breaker.next_probe_at <= self._clock():
            self._breaker.start_probe()
            return Batch.probe()
        # With something to hand out, only what has arrived already is taken along.
        seconds = 0.0 if self._batcher.is_ready() else self._patience()
        collecting = self._batcher.collects_until() - self._clock()
        gather = max(0.0, min(seconds, collecting, _GATHER_SECONDS))
        deliveries = channel.receive(
            seconds - gather, self._batcher.wanted(), gather_seconds=gather
        )
        if deliveries:
            self._dead_letter(self._batcher.accept(deliveries))
            if self._batcher.filling.asks():
                # Of several queues, that of the latest: where one is long, it is the likeliest.
                channel.ask_backlog(deliveries[-1].queue, self._batcher.filling.see)
        return None if self._draining else self._batcher.next_batch()

    def _take_back(self) -> None:
        while self._processed:
            batch = self._processed.popleft()
            if batch.is_probe:
                failed = batch.failure is not None
                self._breaker.end_probe(failed_because=batch.explanation if failed else None)
            else:
                self._dead_letter(self._batcher.conclude(batch))
        while self._confirmed:
            self._batcher.settle_dead_lettered(self._confirmed.popleft())

    def _acknowledge(self, channel: Channel) -> None:
        for tag, multiple in self._batcher.acknowledgements():
            channel.ack(tag, multiple=multiple)
            self._tally.acknowledgements += 1

    def _stop_and_hand_back(self, channel: Channel) -> None:
        """Stop consuming, and let other workers have what ours have not begun."""
        if self._consuming:
            self._consuming = False
            channel.stop_consuming()
        tags = self._batcher.surrender()
        if tags:
            channel.give_back(tags)

    def _dead_letter(self, letters: Sequence[Letter]) -> None:
        if letters:
            self._transport.dead_letter(letters, self._take_confirmed)

    def _take_confirmed(self, letters: Sequence[Letter]) -> None:
        self._confirmed.append(letters)
        self._wake()

    def _patience(self) -> float:
        """How long the wait for deliveries may last before something else is due, in seconds."""
        if self._draining:
            return _DRAIN_POLL_SECONDS
        now = self._clock()
        due = min(
            now + self._limits.idle_seconds,
            self._batcher.next_due_at(),
            self._breaker.next_probe_at,
        )
        if self._consuming and self._breaker.state is BreakerState.OPEN:
            due = min(due, self._breaker.hold_ends_at)
        return max(0.0, due - now)

    def _message(self, batch: Batch[T]) -> MessageProxy:
        return MessageProxy(
            Message(
                queue_name=self._queue_name,
                actor_name=self._actor_name,
                args=(batch,),
                kwargs={},
                options={},
            )
        )

    def _open_channel(self) -> Channel | None:
        if self._draining:
            self._interrupted.clear()  # it has ended the wait that it was for
            self._wait(_DRAIN_POLL_SECONDS)
            return None
        return self._opening.open()

    def _lose_channel(self, loss: ChannelLost) -> None:
        if not self._draining:
            log.warning("broker.connection_lost", extra={"cause": str(loss)})
        self._close_channel()
        self._opening.pause_after_loss()

    def _close_channel(self) -> None:
        """What was open returns to the queue by itself, as the broker sees the channel end."""
        channel, self._channel, self._consuming = self._channel, None, False
        self._batcher.end_channel()
        if channel is not None:
            channel.close()

    def _wake(self) -> None:
        channel = self._channel
        if channel is not None:
            channel.wake()
