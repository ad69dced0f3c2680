"""The purchase event on the wire: one strict reading of bytes that anybody may have sent.

The API checks only that a user id is a non-empty string, so every byte here may be hostile. A
body becomes a :class:`Purchase` or an :class:`~flashsale.errors.EventRefused`, and nothing else.

There are two paths with one set of rules. The *common* one takes a body that is exactly the three
strings, and is fast enough for a whole sale on one core. The *strict* one takes
everything else, and gives the reason of each refusal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NoReturn

import msgspec

from flashsale.errors import EventRefused

MAX_USER_ID_LENGTH: Final = 255  # code points, as varchar(255) counts

_SALE_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Hours and offsets are bounded here because fromisoformat takes 24:00 or +05:99 in some versions.
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d+)?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII | re.IGNORECASE,
)
# The quotes of three keys and three values.
_QUOTES_OF_THE_COMMON_EVENT = 12
_KEYS: Final = {"saleId", "userId", "timestamp"}


class Reason(StrEnum):
    """Why an event became a dead letter. The values are contract: they stand in its headers."""

    ENCODING = "encoding"
    """The body is not UTF-8 without a byte order mark."""
    JSON = "json"
    """The body is not one JSON document, or nests too deep, or holds a number without a value."""
    TYPE = "type"
    """The document is no object, or an id in it is no string."""
    MISSING = "missing"
    """An id is absent or null."""
    TEXT = "text"
    """The user id is blank, or holds control characters or halves of a surrogate pair."""
    LENGTH = "length"
    """The user id is longer than its column, 255 code points."""
    FORMAT = "format"
    """The sale id is not a UUID in its form of 36 characters."""
    DUPLICATE_KEY = "duplicate_key"
    """An object names a key twice; the API and the worker could read different values."""
    TOO_LARGE = "too_large"
    """The body is over the limit; it was not read."""

    UNKNOWN_SALE = "unknown_sale"
    """No sale has this id."""
    CONSTRAINT = "constraint"
    """The database refused a value of this event."""
    UNCLASSIFIED = "unclassified"
    """The event failed alone, again and again, with an error that nothing is known about."""
    POISON = "poison"
    """The event was there each time a worker process died."""


class Purchase(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One shopper's purchase, as the API publishes it.

    The constructor checks nothing; what comes from outside goes through :meth:`parse`. Instances
    are immutable, hashable and safe to share between threads.

    Attributes:
        sale_id: The sale's UUID in lower case, 36 characters.
        user_id: The shopper, code point for code point as sent: ids that differ in case, in
            normalization or by an invisible character are different shoppers.
        timestamp: When the API took the purchase, as sent; None where that was no text. It is
            for the lag metric alone and decides nothing.
    """

    sale_id: str
    user_id: str
    timestamp: str | None = None

    @classmethod
    def parse(
        cls,
        body: bytes,
        *,
        max_bytes: int = 65_536,
        on_unknown_keys: Callable[[], object] | None = None,
    ) -> Purchase:
        """Read an event; NestJS's ``{"pattern": …, "data": {…}}`` around it is understood.

        `on_unknown_keys` is called where the event, if it is none to refuse, has keys that say
        nothing to us.

        Raises:
            EventRefused: with a :class:`Reason`, whatever the bytes are. The explanation holds
                no part of the body.
        """
        if len(body) > max_bytes:
            _refuse(Reason.TOO_LARGE, f"the body has {len(body)} bytes, {max_bytes} are allowed")
        # Three keys and three strings need that many quotes: where they are the three of a
        # purchase, no other key is there, none twice, and no string has been skipped unread. Any
        # doubt goes to the strict path.
        if body.count(b'"') == _QUOTES_OF_THE_COMMON_EVENT:
            try:
                event = _decode_common(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if event.timestamp is not None:
                    return _checked(event)
        return _parse_strictly(body, on_unknown_keys)

    def encode(self) -> bytes:
        """The body that the API would send: compact JSON, no escapes but the necessary ones."""
        return msgspec.json.encode(self)

    @property
    def occurred_at(self) -> datetime | None:
        """The timestamp, in UTC; None where it is not RFC 3339 or no time Python knows.

        A leap second is such a time. Digits beyond the microsecond are cut.
        """
        if self.timestamp is None or not _RFC_3339.fullmatch(self.timestamp):
            return None
        try:
            return datetime.fromisoformat(self.timestamp.upper()).astimezone(UTC)
        except (ValueError, OverflowError):  # 30 February, second 60; year 10,000 by its offset
            return None


_decode_common = msgspec.json.Decoder(Purchase).decode


def _refuse(reason: Reason, explanation: str) -> NoReturn:
    # Without the cause: the errors of json and of the codecs carry the whole body.
    raise EventRefused(reason, explanation) from None


def _checked(purchase: Purchase) -> Purchase:
    """The purchase with its sale id in lower case; the rules of the fields, for both paths."""
    sale_id = _canonical_sale_id(purchase.sale_id)
    user_id = purchase.user_id
    if len(user_id) > MAX_USER_ID_LENGTH:
        _refuse(Reason.LENGTH, f"userId has more than {MAX_USER_ID_LENGTH} characters")
    if not user_id.strip():
        _refuse(Reason.TEXT, "userId is blank")
    # isprintable is the quick answer for most; it also denies much that is allowed.
    if not user_id.isprintable():
        if _CONTROL.search(user_id):
            _refuse(Reason.TEXT, "userId holds a control character")
        if _SURROGATE.search(user_id):
            _refuse(Reason.TEXT, "userId holds half of a surrogate pair")
    if sale_id == purchase.sale_id:
        return purchase
    return Purchase(sale_id, user_id, purchase.timestamp)


@lru_cache(maxsize=1_024)  # refusals are not kept, so an entry is never longer than an id
def _canonical_sale_id(sale_id: str) -> str:
    # Not uuid.UUID: that takes braces, urn:uuid: and full-width digits as well.
    if not _SALE_ID.fullmatch(sale_id):
        _refuse(Reason.FORMAT, "saleId is not a UUID of 36 characters")
    return sale_id.lower()


def _parse_strictly(body: bytes, on_unknown_keys: Callable[[], object] | None) -> Purchase:
    event = _load(body)
    if not isinstance(event, dict):
        _refuse(Reason.TYPE, "the document is not an object")
    if "saleId" not in event and isinstance(event.get("data"), dict):
        event = event["data"]
    sale_id, user_id = _text(event, "saleId"), _text(event, "userId")
    timestamp = event.get("timestamp")
    if not isinstance(timestamp, str) or _SURROGATE.search(timestamp):
        timestamp = None
    purchase = _checked(Purchase(sale_id, user_id, timestamp))
    if on_unknown_keys is not None and not event.keys() <= _KEYS:
        on_unknown_keys()
    return purchase


def _text(event: dict[str, Any], key: str) -> str:
    value = event.get(key)
    if value is None:
        _refuse(Reason.MISSING, f"{key} is missing")
    if not isinstance(value, str):
        _refuse(Reason.TYPE, f"{key} is not a string")
    return value


def _load(body: bytes) -> Any:
    # json itself guesses UTF-16 and UTF-32 and lets coded surrogates pass. A zero byte among the
    # first four is how those encodings show where they have no byte order mark.
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(Reason.ENCODING, f"the body is not UTF-8 from byte {error.start} on")
    if text.startswith("\ufeff") or b"\0" in body[:4]:
        _refuse(Reason.ENCODING, "the body is not plain UTF-8: a byte order mark, UTF-16 or UTF-32")
    try:
        return _strict_json.decode(text)
    except json.JSONDecodeError as error:
        _refuse(Reason.JSON, f"the body is not one JSON document, from character {error.pos} on")
    except RecursionError:
        _refuse(Reason.JSON, "the document nests too deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse(Reason.DUPLICATE_KEY, "an object names a key twice")
    return found


def _number(digits: str) -> float:
    # Whole numbers too: nobody reads them, and int() fails or takes long on thousands of digits.
    number = float(digits)
    if math.isinf(number):
        _refuse(Reason.JSON, "a number is too large")
    return number


def _constant(_: str) -> NoReturn:
    _refuse(Reason.JSON, "NaN and Infinity are not JSON")


_strict_json = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_number, parse_constant=_constant
)
