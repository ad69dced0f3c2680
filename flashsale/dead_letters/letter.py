"""A dead letter as it lies in its queue, whoever put it there, read without trust."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pika.spec import BasicProperties

from flashsale.brokers.dead_letter_writer import HEADER_PREFIX, in_short
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase

UNKNOWN = "unknown"
"""The reason of a letter that does not tell any."""

_WORD = re.compile("[a-z0-9_]{1,40}")
_SQLSTATE = re.compile("[0-9A-Z]{5}")
# RabbitMQ itself changes these at each delivery.
_COUNTERS = ("x-delivery-count", "x-acquired-count")
# The NestJS worker counts in it how often it has put an event back.
_REPEATS = "x-retry-count"
_SHOWN_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter. All texts but those of the body are checked, safe to print and to log.

    Attributes:
        id: Names this letter, 32 hex digits; equal only for letters that nothing tells apart.
            An event that fails again makes a letter with another id.
        sha256: The body's fingerprint, 64 hex digits: the same for each death of the same event.
        reason: The worker's reason code, ``broker_expired`` and the like for RabbitMQ's own
            deaths, or :data:`UNKNOWN`.
        sqlstate: What the database answered, or None.
        explanation: The reason in the worker's words, or those of whoever wrote the letter; short,
            or None.
        sale_id, user_id: As the body has them, unchecked where it is no valid event, or None.
        first_seen, last_seen: When the event came and when it became a letter, or None.
        attempts: How often the worker tried it, this one or the one before it, or None.
        refusal: Why the worker would refuse this body again, or None where it would take it.
        queue: Where it came from, by the worker or RabbitMQ, unchecked; None where nothing says it.
        deliveries: How often RabbitMQ has counted a delivery; quorum queues alone count.
        headers: All headers as they are.
        body: Byte for byte.
    """

    id: str
    sha256: str
    reason: str
    sqlstate: str | None
    explanation: str | None
    sale_id: str | None
    user_id: str | None
    first_seen: datetime | None
    last_seen: datetime | None
    attempts: int | None
    refusal: str | None
    queue: str | None
    deliveries: int
    headers: Mapping[str, Any]
    body: bytes

    @property
    def short_id(self) -> str:
        """As much of the id as people type."""
        return self.id[:_SHOWN_ID_LENGTH]

    @classmethod
    def read(cls, properties: BasicProperties, body: bytes, *, max_bytes: int) -> DeadLetter:
        """Read a message of the dead-letter queue, whatever is in it.

        `max_bytes` is the largest event that the worker takes.
        """
        headers = properties.headers or {}
        death = _broker_death(headers)
        sale_id, user_id, refusal = _event(body, max_bytes)
        deliveries = headers.get("x-delivery-count")
        died_at = _time(death.get("time"))
        return cls(
            id=_identity(properties, body),
            sha256=hashlib.sha256(body).hexdigest(),
            reason=_reason(headers, death),
            sqlstate=_matching(_SQLSTATE, _ours(headers, "sqlstate")),
            explanation=_explanation(headers),
            sale_id=sale_id,
            user_id=user_id,
            first_seen=_time(_ours(headers, "first-seen")) or died_at,
            last_seen=_time(_ours(headers, "last-seen")) or died_at or _time(properties.timestamp),
            attempts=_attempts(headers),
            refusal=refusal,
            queue=_queue(headers, death),
            deliveries=deliveries if isinstance(deliveries, int) else 0,
            headers=headers,
            body=body,
        )

    def record(self) -> dict[str, Any]:
        """All but headers and body, for JSON."""
        return {
            "id": self.id,
            "reason": self.reason,
            "sqlstate": self.sqlstate,
            "explanation": self.explanation,
            "saleId": self.sale_id,
            "userId": self.user_id,
            "firstSeen": self.first_seen.isoformat() if self.first_seen else None,
            "lastSeen": self.last_seen.isoformat() if self.last_seen else None,
            "attempts": self.attempts,
            "refusal": self.refusal,
            "bytes": len(self.body),
            "sha256": self.sha256,
        }


def _identity(properties: BasicProperties, body: bytes) -> str:
    """A digest of all that stays the same however often the letter is looked at."""
    headers = {
        name: value for name, value in (properties.headers or {}).items() if name not in _COUNTERS
    }
    about = (sorted(headers.items()), properties.message_id, properties.timestamp)
    digest = hashlib.sha256(repr(about).encode())
    digest.update(body)
    return digest.hexdigest()[:32]


def _ours(headers: Mapping[str, Any], name: str) -> Any:
    return headers.get(HEADER_PREFIX + name)


def _attempts(headers: Mapping[str, Any]) -> int | None:
    ours, repeats = _ours(headers, "attempts"), headers.get(_REPEATS)
    if isinstance(ours, int):
        return ours
    return repeats + 1 if isinstance(repeats, int) else None


def _matching(pattern: re.Pattern[str], value: Any) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _broker_death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """What RabbitMQ noted when it moved the message here itself; the latest death comes first."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return latest if isinstance(latest, dict) else {}


def _reason(headers: Mapping[str, Any], death: Mapping[str, Any]) -> str:
    if reason := _matching(_WORD, _ours(headers, "reason")):
        return reason
    if reason := _matching(_WORD, death.get("reason")):
        return f"broker_{reason}"
    return UNKNOWN


def _explanation(headers: Mapping[str, Any]) -> str | None:
    # Shortened again, since anyone may have written it.
    explanation = _ours(headers, "explanation")
    return in_short(explanation) if isinstance(explanation, str) else None


def _queue(headers: Mapping[str, Any], death: Mapping[str, Any]) -> str | None:
    for queue in (_ours(headers, "queue"), death.get("queue")):
        if isinstance(queue, str):
            return queue
    return None


def _time(value: Any) -> datetime | None:
    """A header's time: our own text, a datetime of pika's (UTC, naive), or epoch seconds."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int):
            value = datetime.fromtimestamp(value, UTC)
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _event(body: bytes, max_bytes: int) -> tuple[str | None, str | None, str | None]:
    """The body's sale, its user, and why the worker would refuse it."""
    try:
        purchase = Purchase.parse(body, max_bytes=max_bytes)
    except EventRefused as refused:
        refusal = refused.reason
    else:
        return purchase.sale_id, purchase.user_id, None
    if len(body) > max_bytes:
        return None, None, refusal
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None, None, refusal
    if isinstance(event, dict) and "saleId" not in event:
        event = event.get("data", event)
    if not isinstance(event, dict):
        return None, None, refusal
    ids = (event.get("saleId"), event.get("userId"))
    sale_id, user_id = (value if isinstance(value, str) else None for value in ids)
    return sale_id, user_id, refusal
