"""Letters counted by their cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flashsale.dead_letters.letter import DeadLetter


@dataclass
class Group:
    """Letters of one cause."""

    reason: str
    sqlstate: str | None
    sale_id: str | None
    count: int = 0
    refused: int = 0
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    example: str = ""

    def add(self, letter: DeadLetter) -> None:
        self.count += 1
        self.refused += letter.refusal is not None
        self.example = self.example or letter.short_id
        first, last = letter.first_seen or letter.last_seen, letter.last_seen
        if first is not None:
            self.first_seen = min(self.first_seen or first, first)
        if last is not None:
            self.last_seen = max(self.last_seen or last, last)

    def record(self) -> dict[str, Any]:
        """For JSON. `refused` is how many the worker would refuse again, unless they are edited."""
        return {
            "reason": self.reason,
            "sqlstate": self.sqlstate,
            "saleId": self.sale_id,
            "count": self.count,
            "refused": self.refused,
            "firstSeen": self.first_seen.isoformat() if self.first_seen else None,
            "lastSeen": self.last_seen.isoformat() if self.last_seen else None,
            "example": self.example,
        }


@dataclass
class Groups:
    """Letters by cause: reason and SQLSTATE, and with `by_sale` the sale as well.

    Hostile letters can name any number of causes; beyond `limit` they are counted together.
    """

    by_sale: bool = False
    limit: int = 1_000
    _groups: dict[tuple[str, str | None, str | None], Group] = field(default_factory=dict)

    def add(self, letter: DeadLetter) -> None:
        key = (letter.reason, letter.sqlstate, letter.sale_id if self.by_sale else None)
        if key not in self._groups and len(self._groups) >= self.limit:
            key = ("others", None, None)
        self._groups.setdefault(key, Group(*key)).add(letter)

    def largest_first(self) -> list[Group]:
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.reason))
