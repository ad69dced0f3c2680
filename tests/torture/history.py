"""The account of a round: what was published against what was found, as sets.

All that an event does is to add its key to a set (of orders, of audit rows, of dead letters), so
set algebra finds every possible loss. Nothing here does I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """What can become one order."""

    sale_id: str
    user_id: str


class Event(NamedTuple):
    """A published body, and what it has to become: the order of `key`, or a dead letter.

    A repeat is an event of a key that another event has had before.
    """

    body: bytes
    key: Key | None
    reason: str = ""


@dataclass
class History:
    """Everything that was published, by how sure it is that RabbitMQ has taken it over."""

    confirmed: list[Event] = field(default_factory=list)
    #: Sent and not confirmed: it may have arrived or not.
    unknown: list[Event] = field(default_factory=list)


class AuditRow(NamedTuple):
    key: Key
    event_type: str
    order_id: str | None


class DeadLetter(NamedTuple):
    body: bytes
    reason: str


@dataclass(frozen=True)
class Found:
    """What is there after the round, once everything stands still."""

    orders: Iterable[tuple[str, Key]] = ()
    """Order ids with their keys."""
    audit: Iterable[AuditRow] = ()
    dead_letters: Iterable[DeadLetter] = ()
    queued: Iterable[bytes] = ()
    """Bodies still in the purchase queue."""


@dataclass
class Verdict:
    """The findings of one round. Empty sets and zeros are good."""

    confirmed: int = 0
    orders: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    queued: int = 0

    lost: set[Event] = field(default_factory=set)
    """Confirmed events that are neither order, duplicate, dead letter nor queued."""
    unexpected: set[Key] = field(default_factory=set)
    """Orders that nobody asked for."""
    double_orders: set[Key] = field(default_factory=set)
    wrong_letters: list[DeadLetter] = field(default_factory=list)
    """Dead letters of good events, of events never published, or with another event's reason."""
    audit_missing: set[Key] = field(default_factory=set)
    """Orders without their CONFIRMED row."""
    audit_double: set[Key] = field(default_factory=set)
    audit_wrong: list[AuditRow] = field(default_factory=list)
    """CONFIRMED rows without their order, and rows of what was never published."""

    double_letters: int = 0
    """Second copies of dead letters: allowed, as deliveries may repeat."""
    failed_db: int = 0
    """FAILED_DB rows: allowed, as each tells of a first attempt that failed."""

    def problems(self) -> list[str]:
        """Every broken promise in one line each; none where all is well."""
        counts = {
            "lost": len(self.lost),
            "unexpected orders": len(self.unexpected),
            "double orders": len(self.double_orders),
            "wrong dead letters": len(self.wrong_letters),
            "orders without CONFIRMED row": len(self.audit_missing),
            "orders with two CONFIRMED rows": len(self.audit_double),
            "wrong audit rows": len(self.audit_wrong),
        }
        return [f"{count} {what}" for what, count in counts.items() if count]


def judge(history: History, found: Found) -> Verdict:
    """Account for every event.

    A confirmed event must be found; one that is unknown may be found; nothing else may be there.
    """
    verdict = Verdict(confirmed=len(history.confirmed))
    published = [*history.confirmed, *history.unknown]
    orders = list(found.orders)
    letters = list(found.dead_letters)
    queued = set(found.queued)
    order_keys = Counter(key for _, key in orders)
    letter_bodies = Counter(letter.body for letter in letters)

    verdict.orders, verdict.dead_letters = len(orders), len(letters)
    verdict.queued = len(list(found.queued))
    verdict.double_letters = letter_bodies.total() - len(letter_bodies)
    verdict.double_orders = {key for key, count in order_keys.items() if count > 1}
    verdict.unexpected = set(order_keys) - {event.key for event in published if event.key}

    reached: Counter[Key] = Counter()
    for event in history.confirmed:
        if event.body in queued:
            continue
        if event.key is None:
            if event.body not in letter_bodies:
                verdict.lost.add(event)
        elif event.key in order_keys:
            reached[event.key] += 1
        else:
            verdict.lost.add(event)
    verdict.duplicates = reached.total() - len(reached)

    expected_reasons = {event.body: event.reason for event in published if event.key is None}
    verdict.wrong_letters = [
        letter for letter in letters if expected_reasons.get(letter.body) != letter.reason
    ]
    _judge_audit(verdict, published, orders, found.audit)
    return verdict


def _judge_audit(
    verdict: Verdict,
    published: list[Event],
    orders: list[tuple[str, Key]],
    audit: Iterable[AuditRow],
) -> None:
    published_keys = {event.key for event in published}
    key_of_order = dict(orders)
    confirmations: Counter[Key] = Counter()
    for row in audit:
        if row.event_type == "CONFIRMED":
            confirmations[row.key] += 1
            if row.order_id is None or key_of_order.get(row.order_id) != row.key:
                verdict.audit_wrong.append(row)
        elif row.event_type == "FAILED_DB" and row.key in published_keys:
            verdict.failed_db += 1
        else:
            verdict.audit_wrong.append(row)
    verdict.audit_missing = {key for _, key in orders} - set(confirmations)
    verdict.audit_double = {key for key, count in confirmations.items() if count > 1}
