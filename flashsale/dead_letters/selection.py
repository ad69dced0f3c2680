"""The snapshot: one look at the whole queue, and the exact set of letters that it yields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.editing import Edit, NotEditable
from flashsale.dead_letters.groups import Groups
from flashsale.dead_letters.holding import Held, HeldQueue
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.records import Records
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase


def look(queue: HeldQueue, handle: Callable[[DeadLetter], None], *, max_event_bytes: int) -> int:
    """Give every letter that is ready now to `handle`; returns how many. All stay in the queue.

    Each letter is read and let go: memory is bounded by what `handle` keeps.

    Raises:
        QueueIsQuorum: a letter shows that looks are counted here, and that is not allowed.
    """

    def read(held: Held) -> None:
        letter = DeadLetter.read(held.properties, held.body, max_bytes=max_event_bytes)
        if letter.deliveries:
            queue.refuse_quorum()
        handle(letter)

    seen = queue.scan(read)
    queue.give_back()
    return seen


@dataclass
class Selection:
    """What a choice has found.

    Attributes:
        letters: How many letters of each id are to be taken.
        groups: The same by cause.
        largest_bytes: The largest body among them.
        refused: How many were left out because the worker would refuse them, by reason.
        exhausted: How many were left out because they were replayed often enough.
        seen: How many the queue held.
    """

    letters: Counter[str] = field(default_factory=Counter)
    groups: Groups = field(default_factory=Groups)
    largest_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    exhausted: int = 0
    seen: int = 0

    def take(self, letter: DeadLetter) -> None:
        self.letters[letter.id] += 1
        self.groups.add(letter)
        self.largest_bytes = max(self.largest_bytes, len(letter.body))

    @property
    def left_out(self) -> int:
        return self.refused.total() + self.exhausted


def select_all(
    queue: HeldQueue,
    choice: Choice,
    *,
    max_event_bytes: int,
    progress: Callable[[DeadLetter], None],
) -> Selection:
    """Every letter of the choice. `progress` hears of each letter of the queue."""
    selection = Selection()

    def handle(letter: DeadLetter) -> None:
        progress(letter)
        if choice.takes(letter):
            selection.take(letter)

    selection.seen = look(queue, handle, max_event_bytes=max_event_bytes)
    return selection


def select_replayable(
    queue: HeldQueue,
    choice: Choice,
    *,
    edit: Edit,
    records: Records,
    limit: int,
    force: bool,
    max_event_bytes: int,
    progress: Callable[[DeadLetter], None],
) -> Selection:
    """The letters of the choice that it makes sense to send again; with `force`, all of it.

    Left out is what the worker would refuse as it did before, and what was replayed `limit` times.
    """
    selection = Selection()

    def handle(letter: DeadLetter) -> None:
        progress(letter)
        if not choice.takes(letter):
            return
        refusal = _refusal(letter, edit, max_event_bytes)
        if refusal is not None and not force:
            selection.refused[refusal] += 1
        elif not force and records.replays(letter.sha256) >= limit:
            selection.exhausted += 1
        else:
            selection.take(letter)

    selection.seen = look(queue, handle, max_event_bytes=max_event_bytes)
    return selection


def _refusal(letter: DeadLetter, edit: Edit, max_event_bytes: int) -> str | None:
    if not edit.fingerprint:
        return letter.refusal
    try:
        Purchase.parse(edit.apply(letter.body), max_bytes=max_event_bytes)
    except EventRefused as refused:
        return refused.reason
    except NotEditable:
        return "not_editable"
    return None
