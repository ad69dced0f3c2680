"""Sends a set of dead letters to the worker again: confirmed, ramped, paced, and watched."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.holding import Held, HeldQueue
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.records import Plan, Records
from flashsale.dead_letters.watching import Watch, stages
from flashsale.errors import PublishUnconfirmed
from flashsale.spreading import queue_for

_WINDOW = 200
_WINDOW_BYTES = 16_777_216
_PASSES = 3
_PASS_PAUSE_SECONDS = 1.0
# RabbitMQ ends a channel that holds a message for half an hour; a new one starts at the head.
_LONGEST_HOLD_SECONDS = 600.0
_CHUNKS_A_SECOND = 10
# How long a request to stop may go unheard in a pause.
_PAUSE_SECONDS = 0.2


class Caps(NamedTuple):
    """How carefully: events a second, the share of a stage that may fail again, and how long each
    stage is watched after the worker has taken it."""

    rate: float
    max_failed_share: float
    settle_seconds: float


@dataclass
class RunOutcome:
    """How far a run is, and how it ended.

    Attributes:
        planned: Letters of the set.
        done: Taken out of the dead letters: sent and confirmed, or discarded.
        failed_again: Of those, how many are dead letters once more, as far as was watched.
        missing: Not in the queue: taken, or held, by somebody else, or by a run before.
        left_out: Chosen, and not in the set: not worth sending as they are.
        stopped: Why it ended before the end of the set, or None.
    """

    planned: int
    done: int = 0
    failed_again: int = 0
    missing: int = 0
    left_out: int = 0
    stopped: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of it is done, and nothing of it undone."""
        return not (self.stopped or self.failed_again or self.missing or self.left_out)

    def record(self) -> dict[str, Any]:
        """For JSON and for the journal."""
        return {
            "planned": self.planned,
            "done": self.done,
            "failedAgain": self.failed_again,
            "missing": self.missing,
            "leftOut": self.left_out,
            "stopped": self.stopped,
        }


class Letters:
    """The letters of a set, taken from the queue in order, however many lie between them.

    Those between stay held until the queue has been gone through; of them nothing is kept.
    """

    def __init__(
        self, queue: HeldQueue, wanted: Counter[str], *, window: int, max_event_bytes: int
    ) -> None:
        self.wanted = wanted
        self._queue = queue
        self._window = window
        self._max_event_bytes = max_event_bytes
        self._waiting: deque[tuple[int, DeadLetter]] = deque()
        self._waiting_ids: Counter[str] = Counter()

    def next(self, limit: int) -> list[tuple[int, DeadLetter]]:
        """Up to `limit` of them with their tags; none where none is to be found any more."""
        passes = 1
        while not self._waiting and self.wanted.total():
            if self._queue.held_seconds > _LONGEST_HOLD_SECONDS:
                self.give_back()
            if self._queue.take(self._window, self._keep) < self._window and not self._waiting:
                if passes == _PASSES:
                    break
                # Somebody who looks at the queue holds all of it for a moment.
                self.give_back()
                self._queue.wait(_PASS_PAUSE_SECONDS)
                passes += 1
        found = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        self._waiting_ids.subtract(letter.id for _, letter in found)
        return found

    def done(self, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        """Take these out of the queue and of the set."""
        self._queue.ack([tag for tag, _ in letters])
        self.wanted.subtract(letter.id for _, letter in letters)

    def give_back(self) -> None:
        """Return all that is held to the queue."""
        self._waiting.clear()
        self._waiting_ids.clear()
        self._queue.give_back()

    def _keep(self, held: Held) -> None:
        letter = DeadLetter.read(held.properties, held.body, max_bytes=self._max_event_bytes)
        if self.wanted[letter.id] > self._waiting_ids[letter.id]:
            self._waiting.append((held.tag, letter))
            self._waiting_ids[letter.id] += 1


def window_for(largest_bytes: int, rate: float) -> int:
    """How many letters may wait with their bodies: for 5 minutes at most, and in 16 MiB."""
    in_time = int(rate * _LONGEST_HOLD_SECONDS / 2)
    return max(1, min(_WINDOW, _WINDOW_BYTES // max(1, largest_bytes), in_time))


def home_of(letter: DeadLetter, queues: Sequence[str]) -> str:
    """The queue that a letter goes back to: where it came from.

    One of no known origin, or from a queue that is not among these any more, goes where its event
    would be published now. Anybody may have written what it says: it can only choose among these.
    """
    origin = [queue for queue in queues if queue == letter.queue]
    return origin[0] if origin else queue_for(letter.body, queues)


@dataclass
class Replay:
    """One run over one plan. What it is killed in the middle of is done by the next run of it.

    Args:
        progress: Called with the number of letters replayed so far.
        on_stage: Called when a stage has been judged, with its size and how many failed again.
        on_wait: Called now and then while the worker has not come to the events of a stage, with
            the number of purchases that it takes before it has had all of them.
        stop: Once set, the run ends after what is under way.
    """

    queue: HeldQueue
    publisher: ConfirmingPublisher
    records: Records
    plan: Plan
    caps: Caps
    targets: Sequence[str]
    edit: Edit
    outcome: RunOutcome
    max_event_bytes: int
    window: int
    progress: Callable[[int], None]
    on_stage: Callable[[int, int], None]
    on_wait: Callable[[int], None]
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Replay the plan.

        Raises:
            BrokerError: RabbitMQ failed; what was not confirmed is in the dead letters still.
            RecordsUnusable: replays cannot be counted.
        """
        wanted = Counter(self.plan.letters)
        self._letters = Letters(
            self.queue, wanted, window=self.window, max_event_bytes=self.max_event_bytes
        )
        self._watch = Watch(
            self.queue,
            self.targets,
            planned=self.plan.letters,
            settle_seconds=self.caps.settle_seconds,
            max_event_bytes=self.max_event_bytes,
            on_wait=self.on_wait,
            stop=self.stop,
        )
        for size in stages():
            sent = self._stage(size)
            if sent:
                self._judge(sent)
            if self.stop.is_set():
                self.outcome.stopped = "interrupted"
            if self.outcome.stopped:
                break
            if sent < size:
                self.outcome.missing = (+wanted).total()
                break
        self._letters.give_back()

    def _stage(self, size: int) -> int:
        """Send up to `size` letters at the pace; returns how many there were."""
        chunk = max(1, int(self.caps.rate / _CHUNKS_A_SECOND))
        sent, due_at = 0, time.monotonic()
        while sent < size and not self.stop.is_set():
            letters = self._letters.next(min(chunk, size - sent))
            if not letters:
                break
            self._send(letters)
            sent += len(letters)
            self.progress(self.outcome.done)
            due_at = max(due_at, time.monotonic() - 1.0) + len(letters) / self.caps.rate
            while (rest := due_at - time.monotonic()) > 0 and not self.stop.is_set():
                self.queue.wait(min(rest, _PAUSE_SECONDS))
        return sent

    def _send(self, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        bodies = [self.edit.apply(letter.body) for _, letter in letters]
        homes = [home_of(letter, self.targets) for _, letter in letters]
        # Before they leave: a crash may count one too many, and never one too few.
        self.records.count_replays(self._watch.expect(bodies))
        try:
            self.publisher.publish(map(Outgoing, homes, bodies))
        except PublishUnconfirmed as error:
            self._done([each for at, each in enumerate(letters) if error.is_confirmed(at)])
            raise
        self._done(letters)

    def _done(self, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        self._letters.done(letters)
        self.outcome.done += len(letters)
        self._watch.acknowledged += len(letters)

    def _judge(self, sent: int) -> None:
        before = self._watch.failed_again
        self.outcome.stopped = self._watch.settle(self._letters.give_back)
        self.outcome.failed_again = self._watch.failed_again
        failed = self._watch.failed_again - before
        self.on_stage(sent, failed)
        if failed > self.caps.max_failed_share * sent and self.outcome.stopped is None:
            self.outcome.stopped = f"{failed} of the last {sent} failed again"
