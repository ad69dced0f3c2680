"""What has arrived and is not handed out yet, and the deliveries that may kill who takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from flashsale.batching.batch import Delivery, Rejection
from flashsale.batching.tally import Tally

T = TypeVar("T")

#: The reason of a delivery that was at work in process after process that died.
POISON_REASON = "poison"

_FATAL_DEATHS = 3
_FIRST_WATCHED_SIZE = 8


class Suspicion(Protocol):
    """Remembers, beyond the death of its process, which deliveries were at work as it died."""

    def deaths(self, body: bytes) -> int:
        """In how many processes that died the delivery was under watch."""

    def begin(self, bodies: Sequence[bytes]) -> None:
        """Note that these are at work: if the process dies now, it was with them."""

    def end(self, bodies: Sequence[bytes]) -> None:
        """Forget these: the process has survived them, or they are set aside."""


class Handful(NamedTuple, Generic[T]):
    """Deliveries for one batch; `watched` ones run by themselves, under suspicion."""

    items: Sequence[T]
    deliveries: Sequence[Delivery]
    watched: bool


class Intake(Generic[T]):
    """The deliveries that wait for a batch.

    One that comes for the first time is trusted. One that comes again may have killed a process:
    such run in small batches with no other batch beside them, and the batches grow with each full
    one that survives, until none is left. Those of a batch that did not survive run alone the next
    time, and after three deaths a delivery is rejected as poison. The others of its batches are
    saved by that.
    """

    def __init__(self, suspicion: Suspicion | None, tally: Tally) -> None:
        self._suspicion = suspicion
        self._tally = tally
        self._trusted: deque[tuple[T, Delivery]] = deque()
        self._watched: deque[tuple[T, Delivery]] = deque()
        self._alone: deque[tuple[T, Delivery]] = deque()
        self._watched_size = _FIRST_WATCHED_SIZE

    def __len__(self) -> int:
        return len(self._trusted) + len(self._watched) + len(self._alone)

    @property
    def has_watched(self) -> bool:
        return bool(self._watched or self._alone)

    def add(self, item: T, delivery: Delivery) -> Rejection | None:
        """Take a delivery in, or reject it."""
        if self._suspicion is None or not delivery.redelivered:
            self._trusted.append((item, delivery))
            return None
        self._tally.redelivered += 1
        deaths = self._suspicion.deaths(delivery.body)
        if deaths >= _FATAL_DEATHS:
            return Rejection(POISON_REASON)
        (self._alone if deaths else self._watched).append((item, delivery))
        return None

    def take(self, room: int) -> Handful[T] | None:
        """The next deliveries for a batch of at most `room`; watched ones first."""
        if self._alone:
            return self._handful(self._alone, 1, watched=True)
        if self._watched:
            return self._handful(self._watched, min(room, self._watched_size), watched=True)
        if self._trusted:
            return self._handful(self._trusted, room, watched=False)
        return None

    def survived(self, bodies: Sequence[bytes]) -> None:
        """Take the end of a watched batch."""
        if self._suspicion is not None:
            self._suspicion.end(bodies)
        if not self.has_watched:
            self._watched_size = _FIRST_WATCHED_SIZE
        elif len(bodies) >= self._watched_size:
            self._watched_size *= 2

    def set_aside(self, rejected: Iterable[tuple[Delivery, Rejection]]) -> None:
        """Take what is safe among the dead letters: poison that is sent again starts afresh."""
        bodies = [delivery.body for delivery, why in rejected if why.reason == POISON_REASON]
        if self._suspicion is not None and bodies:
            self._suspicion.end(bodies)

    def clear(self) -> list[int]:
        """Let go of everything. Returns the tags."""
        tags = []
        for waiting in (self._trusted, self._watched, self._alone):
            tags += [delivery.tag for _, delivery in waiting]
            waiting.clear()
        self._watched_size = _FIRST_WATCHED_SIZE
        return tags

    def _handful(
        self, waiting: deque[tuple[T, Delivery]], room: int, *, watched: bool
    ) -> Handful[T]:
        taken = [waiting.popleft() for _ in range(min(room, len(waiting)))]
        items, deliveries = zip(*taken, strict=True)
        if watched and self._suspicion is not None:
            self._suspicion.begin([delivery.body for delivery in deliveries])
        return Handful(items, deliveries, watched)
