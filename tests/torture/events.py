"""The events of a round: good ones, repeats, and every kind that must be refused."""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from tests.torture.history import Event, Key

#: Stands in every user id: it must never be seen in a log.
CANARY_USER = "canary-buyer"

_REPEATABLE = 500
_TIMESTAMP = "2026-11-27T08:00:00.000Z"


class EventSource:
    """Makes events at random, each body only once. Belongs to one thread at a time."""

    def __init__(self, choice: random.Random, sale_ids: Sequence[str]) -> None:
        self._choice = choice
        self._sale_ids = sale_ids
        self._made = 0
        self._recent: deque[Key] = deque(maxlen=_REPEATABLE)
        self.repeat_share = 0.05
        self.bad_share = 0.02

    def take(self, count: int) -> list[Event]:
        """Some of each kind, in the shares that are set."""
        return [self._any() for _ in range(count)]

    def good(self) -> Event:
        """A purchase that nobody has made yet."""
        key = Key(self._choice.choice(self._sale_ids), self._new_user())
        self._recent.append(key)
        return self.of(key)

    def bad(self) -> Event:
        """An event that must end as a dead letter."""
        reason = self._choice.choice(list(_BAD))
        return Event(
            _BAD[reason](self._choice.choice(self._sale_ids), self._new_user()), None, reason
        )

    def marked(self, mark: str) -> Event:
        """A good event whose user id holds a mark."""
        return self.of(Key(self._choice.choice(self._sale_ids), f"{self._new_user()}-{mark}"))

    def of(self, key: Key) -> Event:
        """One more event for a key; its body differs from all others."""
        self._made += 1
        return Event(_body(key.sale_id, key.user_id, number=self._made), key)

    def _any(self) -> Event:
        lot = self._choice.random()
        if lot < self.bad_share:
            return self.bad()
        if lot < self.bad_share + self.repeat_share and self._recent:
            return self.of(self._choice.choice(self._recent))
        return self.good()

    def _new_user(self) -> str:
        self._made += 1
        return f"{CANARY_USER}-{self._made}"


def _body(sale_id: object, user_id: object, **more: object) -> bytes:
    event = {"saleId": sale_id, "userId": user_id, "timestamp": _TIMESTAMP, **more}
    return json.dumps(event).encode()


# Each holds its user id, so that no two bodies are equal.
_BAD: dict[str, Callable[[str, str], bytes]] = {
    "encoding": lambda sale, user: _body(sale, user) + b"\xff",
    "json": lambda sale, user: _body(sale, user)[:-1],
    "type": lambda sale, user: _body(sale, [user]),
    "missing": lambda _sale, user: _body(None, user),
    "text": lambda sale, user: _body(sale, f"{user}\x00"),
    "length": lambda sale, user: _body(sale, user.ljust(256, "x")),
    "format": lambda _sale, user: _body("not-a-sale", user),
    "duplicate_key": lambda sale, user: _body(sale, user)[:-1] + b', "userId": "another"}',
    "too_large": lambda sale, user: _body(sale, user, note="x" * 70_000),
    "unknown_sale": lambda _sale, user: _body(str(uuid.uuid4()), user),
}
