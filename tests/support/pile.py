"""A dead-letter queue without a node, on a clock that goes on only where somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pika.spec import BasicProperties

from flashsale.brokers.topology import Depth
from flashsale.dead_letters.holding import Held, HeldQueue
from flashsale.dead_letters.letter import DeadLetter

LIMIT = 65_536


class Pile(HeldQueue):
    """Its letters, in order; what is taken is held, and returns to its place.

    Attributes:
        now: What the clock shows; starts far from zero.
        waits: For how long it was waited, each time.
        consumed: The other queues that somebody consumes.
        lengths: How long another queue is, by the seconds that have gone by.
        windows: How many letters were asked for at once, each number of them.
        returns: How often all was given back.
        looks: How often all was looked through.
        quorum_refusals: How often a look was counted.
    """

    def __init__(self, bodies: Iterable[bytes] = (), name: str = "letters") -> None:
        self.queue = name
        self.started_at = self.now = 1_000.0
        self.waits: list[float] = []
        self.consumed: set[str] = set()
        self.lengths: dict[str, Callable[[float], int]] = {}
        self.windows: set[int] = set()
        self.returns = self.looks = self.quorum_refusals = 0
        self._ready: dict[int, Held] = {}
        self._taken: dict[int, Held] = {}
        self._taken_at: float | None = None
        self._tag = 0
        self._due: list[tuple[float, list[bytes]]] = []
        self.put(bodies)

    @property
    def elapsed(self) -> float:
        return round(self.now - self.started_at, 6)

    def set_clock_of(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def put(self, bodies: Iterable[bytes], headers: Mapping[str, Any] | None = None) -> None:
        for body in bodies:
            self._tag += 1
            self._ready[self._tag] = Held(self._tag, BasicProperties(headers=headers), body)

    def put_after(self, seconds: float, bodies: Iterable[bytes]) -> None:
        """More letters, once so many seconds have gone by."""
        self._due.append((self.started_at + seconds, list(bodies)))

    def bodies(self) -> list[bytes]:
        """Of all letters that are ready, in order."""
        return [self._ready[tag].body for tag in sorted(self._ready)]

    @property
    def held_seconds(self) -> float:
        return 0.0 if self._taken_at is None else self.now - self._taken_at

    def depth(self, queue: str | None = None) -> Depth:
        if queue is None:
            return Depth(len(self._ready), 0)
        length = self.lengths.get(queue, lambda _: 0)
        return Depth(length(self.elapsed), int(queue in self.consumed))

    def take(self, limit: int, handle: Callable[[Held], None]) -> int:
        self.windows.add(limit)
        return self._hold(limit, handle)

    def _hold(self, limit: int, handle: Callable[[Held], None]) -> int:
        self._taken_at = self.now if self._taken_at is None else self._taken_at
        taken = [self._ready.pop(tag) for tag in sorted(self._ready)[:limit]]
        for held in taken:
            self._taken[held.tag] = held
            handle(held)
        return len(taken)

    def scan(self, handle: Callable[[Held], None]) -> int:
        self.looks += 1
        return self._hold(len(self._ready), handle)

    def ack(self, tags: Iterable[int]) -> None:
        for tag in tags:
            del self._taken[tag]

    def give_back(self) -> None:
        self.returns += 1
        self._ready.update(self._taken)
        self._taken.clear()
        self._taken_at = None

    def wait(self, seconds: float) -> None:
        self.waits.append(round(seconds, 6))
        # What is too short for its clock is a tick of it, or a wait for the rest would never end.
        self.now = round(self.now + max(seconds, 1e-6), 6)
        for due in [due for due in self._due if due[0] <= self.now]:
            self._due.remove(due)
            self.put(due[1])

    def refuse_quorum(self) -> None:
        self.quorum_refusals += 1


def id_of(body: bytes, headers: Mapping[str, Any] | None = None) -> str:
    """The id of a letter in a pile."""
    return DeadLetter.read(BasicProperties(headers=headers), body, max_bytes=LIMIT).id
