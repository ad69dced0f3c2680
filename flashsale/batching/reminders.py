"""Keeps what lasts from being logged again and again."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable

_REMINDER_SECONDS = 60.0
_MOST_REMEMBERED = 100


class Reminders:
    """Tells of each topic whether a line on it is due: at first, and then once a minute.

    So many topics are remembered; beyond them the one told longest ago is forgotten, and so told
    too often rather than never. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: In the order in which they were told.
        self._told_at: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def is_due(self, topic: Hashable) -> bool:
        """Whether the last minute has had no line on this; takes it for told."""
        now = self._clock()
        with self._lock:
            if now - self._told_at.get(topic, -math.inf) < _REMINDER_SECONDS:
                return False
            self._told_at.pop(topic, None)
            self._told_at[topic] = now
            if len(self._told_at) > _MOST_REMEMBERED:
                del self._told_at[next(iter(self._told_at))]
            return True

    def forget(self, topic: Hashable) -> None:
        """Let the next line on this be due at once."""
        with self._lock:
            self._told_at.pop(topic, None)

    def forget_all(self) -> None:
        with self._lock:
            self._told_at.clear()
