"""What is open, what goes into the next batch, and what follows from one that comes back."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from flashsale.batching.batch import DONE, Batch, Delivery, Failure, Rejection
from flashsale.batching.breaker import Breaker, BreakerState
from flashsale.batching.filling import Filling
from flashsale.batching.intake import Intake, Suspicion
from flashsale.batching.ledger import Ledger
from flashsale.batching.limits import Limits
from flashsale.batching.tally import Tally
from flashsale.batching.transport import Letter

T = TypeVar("T")

# A held batch or a dead letter on its way may leave a gap below settled deliveries for this long
# before they are acknowledged one by one.
_GAP_SECONDS = 1.0


class Acknowledgement(NamedTuple):
    tag: int
    multiple: bool


class Batcher(Generic[T]):
    """The consumer's state without its I/O.

    `decode` turns a body into the actor's item, or into the :class:`Rejection` that dead-letters
    it; it must not raise. Not thread-safe: it lives on the consumer's thread.
    """

    def __init__(
        self,
        decode: Callable[[bytes], T | Rejection],
        *,
        breaker: Breaker,
        limits: Limits,
        tally: Tally,
        clock: Callable[[], float],
        suspicion: Suspicion | None = None,
    ) -> None:
        self._decode = decode
        self._breaker = breaker
        self._limits = limits
        self._tally = tally
        self._clock = clock
        self._ledger = Ledger()
        self._intake: Intake[T] = Intake(suspicion, tally)
        #: Tells when to ask for the backlog, and wants the answer.
        self.filling = Filling(limits, clock)
        self._held: list[tuple[float, int, Batch[T]]] = []
        self._hold_order = itertools.count()
        self._retried_last = False
        self._in_flight: set[Batch[T]] = set()
        self._watched_batch: Batch[T] | None = None
        self._acknowledged_at = clock()
        #: Since when the workers have had batches and returned none; None while they have none.
        self.waiting_since: float | None = None

    def end_channel(self) -> None:
        """Start over, for the next channel. What was open on this one returns by itself."""
        self._tally.returned += self._ledger.open_count
        self._tally.open = 0
        self._ledger.is_closed = True
        self._ledger = Ledger()
        self._intake.clear()
        self._held.clear()
        self.filling.end_channel()

    def accept(self, deliveries: Sequence[Delivery]) -> list[Letter]:
        """Take what has arrived. Returns the dead letters of what cannot be read."""
        self._ledger.deliver([delivery.tag for delivery in deliveries])
        self._tally.delivered += len(deliveries)
        self.filling.count_delivered(len(deliveries))
        self._tally.open = self._ledger.open_count
        received_at = time.time()
        refused = []
        for delivery in deliveries:
            if not delivery.persistent:
                self._tally.not_persistent += 1
            item = self._decode(delivery.body)
            refusal = item if isinstance(item, Rejection) else self._intake.add(item, delivery)
            if refusal is not None:
                refused.append(Letter(self._ledger, delivery, refusal, 0, received_at))
        return refused

    def wanted(self) -> int:
        """How many deliveries could be used now: to fill the next batch, or to be collected."""
        limit = self._room() or self._limits.prefetch
        return max(1, limit - len(self._intake))

    def is_ready(self) -> bool:
        """Whether a batch could be handed out now."""
        return bool(self._room() and (self._intake or self._has_due()))

    def collects_until(self) -> float:
        """Until when nothing is to be handed out, unless a batch is back or another is full."""
        if len(self._in_flight) >= self._limits.in_flight:
            return math.inf
        return self._collected_at() if self._collects() else -math.inf

    def next_batch(self) -> Batch[T] | None:
        """The next batch for the workers: a due retry, or what is collected."""
        room = self._room()
        if not room:
            return None
        now = self._clock()
        # In turns: what fails again and again must not keep what is new from being done.
        if self._has_due() and not (self._retried_last and self._intake):
            batch = self._retry(room)
            self._retried_last = True
        else:
            handful = self._intake.take(room)
            if handful is None:
                return None
            batch = Batch(self._ledger, handful.items, handful.deliveries)
            self._watched_batch = batch if handful.watched else None
            self._retried_last = False
            self.filling.hand_out()
        self._in_flight.add(batch)
        self.waiting_since = self.waiting_since or now
        self._tally.batches += 1
        return batch

    def conclude(self, batch: Batch[T]) -> list[Letter]:
        """Take a batch back from its worker. Returns the dead letters that it leads to."""
        self._land(batch)
        if batch.ledger is not self._ledger:
            # Its tags name other deliveries on the present channel: touch nothing.
            self._tally.stale += len(batch)
            return []
        done, letters = [], []
        for delivery, verdict in zip(batch.deliveries, batch.verdicts, strict=True):
            if verdict is DONE:
                done.append(delivery.tag)
            elif verdict is not None:
                attempts = batch.attempts + 1
                letters.append(Letter(batch.ledger, delivery, verdict, attempts, batch.received_at))
        self._tally.settled += self._ledger.settle(done)
        self._tally.repeats += batch.repeats
        if len(done) + len(letters) < len(batch):
            # After an outage there is no reason to wait: the breaker says when it is over.
            until = self._clock() if batch.failure is Failure.SYSTEM else batch.hold_until
            rest = batch.rest()
            if batch.failure is not Failure.SYSTEM and batch.attempts and len(rest) > 1:
                # What repeats may be a time limit, which half as many may keep, or one of them.
                half, rest = rest.split(len(rest) // 2)
                self._hold(half, until)
            self._hold(rest, until)
            self._tally.held += 1
        return letters

    def _land(self, batch: Batch[T]) -> None:
        """What follows from a batch that is back, whatever channel it is of."""
        self._in_flight.discard(batch)
        self.waiting_since = self._clock() if self._in_flight else None
        if batch is self._watched_batch:
            self._watched_batch = None
            self._intake.survived([delivery.body for delivery in batch.deliveries])
        if batch.failure is Failure.SYSTEM:
            self._breaker.trip(batch.explanation)
        elif batch.failure is None:
            self._breaker.succeed()

    def settle_dead_lettered(self, letters: Sequence[Letter]) -> None:
        """Settle deliveries whose dead letters the broker has confirmed."""
        # Poison of an earlier channel comes again, and must still be known then.
        current = [letter for letter in letters if letter.ledger is self._ledger]
        self._intake.set_aside((letter.delivery, letter.rejection) for letter in current)
        self._tally.stale += len(letters) - len(current)
        for letter in current:
            # One by one: what is confirmed twice counts once.
            settled = self._ledger.settle([letter.delivery.tag])
            self._tally.dead_lettered += settled
            self._tally.reasons[letter.rejection.reason] += settled

    def acknowledgements(self) -> Iterator[Acknowledgement]:
        """What can be acknowledged now, once; to be sent in this order."""
        self._tally.open = self._ledger.open_count
        now = self._clock()
        highest = self._ledger.acknowledge()
        if highest is not None:
            yield Acknowledgement(highest, multiple=True)
        elif self._ledger.unacknowledged_count and now - self._acknowledged_at < _GAP_SECONDS:
            return
        else:
            for tag in self._ledger.acknowledge_above_gaps():
                yield Acknowledgement(tag, multiple=False)
        self._acknowledged_at = now

    def surrender(self) -> list[int]:
        """Let go of all that no worker has. Returns the tags to give back to the queue."""
        tags = self._intake.clear()
        for _, _, batch in self._held:
            tags += [delivery.tag for delivery in batch.deliveries]
        self._held.clear()
        returned = self._ledger.give_back(tags)
        self._tally.returned += len(returned)
        self._tally.open = self._ledger.open_count
        return returned

    def next_due_at(self) -> float:
        """When something other than a delivery needs attention; infinite where nothing does."""
        due = float("inf")
        if self._held and self._room():
            due = self._held[0][0]
        if self._collects() and (self._intake or self._held):
            due = min(due, self._collected_at())
        if self._ledger.unacknowledged_count:
            due = min(due, self._acknowledged_at + _GAP_SECONDS)
        return due

    def _room(self) -> int:
        """The size that a batch handed out now may have; 0 where none may be handed out."""
        if self._breaker.state is BreakerState.OPEN:
            return 0
        if self._in_flight and (self._watched_batch or self._intake.has_watched):
            # What may kill the process must take no other batch along, nor be taken for it.
            return 0
        if self._breaker.state is BreakerState.TRIAL:
            return 0 if self._in_flight else min(self._limits.trial_size, self._limits.batch_size)
        if len(self._in_flight) >= self._limits.in_flight or self._collects():
            return 0
        return self._limits.batch_size

    def _collects(self) -> bool:
        """Whether what could be handed out now had better grow: until a batch is back, or full."""
        return len(self._intake) < self._limits.batch_size and self._clock() < self._collected_at()

    def _collected_at(self) -> float:
        filled_at = self.filling.until(len(self._intake))
        if self.waiting_since is None:
            return filled_at
        return max(filled_at, self.waiting_since + self._limits.collect_seconds)

    def _retry(self, room: int) -> Batch[T]:
        _, _, batch = heapq.heappop(self._held)
        if len(batch) > room:
            batch, rest = batch.split(room)
            self._hold(rest, self._clock())
        return batch

    def _has_due(self) -> bool:
        return bool(self._held) and self._held[0][0] <= self._clock()

    def _hold(self, batch: Batch[T], until: float) -> None:
        heapq.heappush(self._held, (until, next(self._hold_order), batch))
