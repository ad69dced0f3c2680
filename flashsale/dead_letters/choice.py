"""Which letters are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

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
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


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
