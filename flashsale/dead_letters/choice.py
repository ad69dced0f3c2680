"""Which letters are meant, and what they have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flashsale.dead_letters.letter import DeadLetter

_AGE = re.compile(r"(\d{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_age(text: str) -> timedelta:
    """A length of time such as ``90s``, ``15m``, ``2h`` or ``3d``.

    Raises:
        ValueError: it is none.
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no age; write it as 90s, 15m, 2h or 3d")
    try:
        return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long ago") from None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a letter must have to be meant: all that is given here. Without any, all are meant.

    `ids` are ids or beginnings of them. `text` is looked for in body and headers, in any case.
    A letter of unknown age is neither older nor newer than anything.
    """

    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    sale_id: str | None = None
    user_id: str | None = None
    died_before: datetime | None = None
    died_after: datetime | None = None
    text: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and (not self.reasons or letter.reason in self.reasons)
            and (self.sale_id is None or (letter.sale_id or "").lower() == self.sale_id.lower())
            and (self.user_id is None or letter.user_id == self.user_id)
            and self._is_of_age(letter.last_seen)
            and (self.text is None or _holds(letter, self.text))
        )

    def _is_of_age(self, died_at: datetime | None) -> bool:
        if self.died_before is not None and not (died_at and died_at < self.died_before):
            return False
        return self.died_after is None or bool(died_at and died_at >= self.died_after)


def _holds(letter: DeadLetter, text: str) -> bool:
    wanted = text.lower()
    body = letter.body.decode("utf-8", errors="replace").lower()
    return wanted in body or wanted in repr(dict(letter.headers)).lower()


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
