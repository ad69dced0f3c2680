"""Events as anybody may send them, and those of them that become orders."""

from __future__ import annotations

import json
from typing import Final

SALE: Final = "3f0c2a1e-7b44-4b8e-9f57-0a1b2c3d4e5f"
TIME: Final = "2025-11-22T19:49:12.345Z"
COMMON: Final = f'{{"saleId":"{SALE}","userId":"shopper-1","timestamp":"{TIME}"}}'.encode()
LIMIT: Final = 65_536
_NIL = "00000000-0000-0000-0000-000000000000"


def body(**fields: object) -> bytes:
    """An event as JSON.stringify writes it, with some fields set otherwise."""
    event = {"saleId": SALE, "userId": "shopper-1", "timestamp": TIME} | fields
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def raw(sale_id: str = f'"{SALE}"', user_id: str = '"shopper-1"', rest: str = "") -> bytes:
    """An event whose values are JSON text, for what json.dumps would not write."""
    return f'{{"saleId":{sale_id},"userId":{user_id}{rest}}}'.encode()


def envelope(**fields: object) -> bytes:
    """A Dramatiq message that commands, in the place of an event."""
    message = {
        "queue_name": "purchase",
        "actor_name": "confirm_purchases",
        "args": [{"saleId": SALE, "userId": "in an envelope"}],
        "kwargs": {},
        "options": {},
        "message_id": "1",
        "message_timestamp": 0,
    }
    return json.dumps(message | fields).encode()


def changed(old: bytes, new: bytes) -> bytes:
    """The common event with one part of it written otherwise."""
    assert old in COMMON
    return COMMON.replace(old, new, 1)


def padded(start: str, size: int) -> bytes:
    """An event with white space behind it, up to `size` bytes."""
    return raw(user_id=f'"{start}"').ljust(size)


#: Bodies that are as good as any, each with its shopper's id. No two have the same.
ACCEPTED: Final[dict[str, tuple[bytes, str]]] = {
    "an unknown key": (body(userId="unknown key", v=2, a=[1.5], o={"saleId": None}), "unknown key"),
    "a key of JavaScript's": (raw(user_id='"proto"', rest=',"__proto__":{"a":1}'), "proto"),
    "no timestamp": (raw(user_id='"no time"'), "no time"),
    **{
        f"timestamp {value!r}": (body(userId=f"at {value}", timestamp=value), f"at {value}")
        for value in (
            *("", "yesterday", "now", "today", "infinity", "-infinity", "2026-02-30T00:00:00Z"),
            *("294276-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
            *("2016-12-31T23:59:60Z", "2025-11-22", 1e18, -1, 1763840952345, None, True, [], {}),
        )
    },
    "half a pair in the timestamp": (
        raw(user_id='"half time"', rest=r',"timestamp":"\ud800"'),
        "half time",
    ),
    "a NUL in the timestamp": (
        raw(user_id='"nul time"', rest=r',"timestamp":"\u0000"'),
        "nul time",
    ),
    "escaped keys": (
        changed(b"saleId", rb"sale\u0049d").replace(b"shopper-1", b"escaped"),
        "escaped",
    ),
    "white space all around": (b" \r\n\t" + raw(user_id=' "spaced" ') + b"\n\n \t", "spaced"),
    "as large as allowed": (padded("large", LIMIT), "large"),
    "a text as large as allowed": (
        raw(user_id='"long text"', rest=f',"x":"{"x" * 65_000}"'),
        "long text",
    ),
    "NestJS's wrapper": (
        b'{"pattern":"purchase","data":' + body(userId="wrapped") + b"}",
        "wrapped",
    ),
    "NestJS's wrapper for an answer": (
        b'{"pattern":{"cmd":"purchase"},"data":' + body(userId="request") + b',"id":"1"}',
        "request",
    ),
    "an event with a wrapper's keys": (
        body(userId="own", pattern="purchase", data={"saleId": _NIL, "userId": "other"}),
        "own",
    ),
    "an envelope's keys beside an event's": (
        body(userId="both", actor_name=["x"], queue_name="x", options=None),
        "both",
    ),
    "sale id in upper case": (body(saleId=SALE.upper(), userId="upper case"), "upper case"),
    "numbers that nobody reads": (raw(user_id='"number"', rest=f',"x":{"9" * 300}'), "number"),
    "a nesting that nobody reads": (
        raw(user_id='"nested"', rest=f',"x":{"[" * 400}{"]" * 400}'),
        "nested",
    ),
    "an escaped pair": (raw(user_id=r'"\ud83d\ude00 escaped"'), "\U0001f600 escaped"),
    **{
        f"user id {name}": (body(userId=user_id), user_id)
        for name, user_id in {
            "of 255": "a" * 255,
            "of 255 outside the BMP": "\U0001f600" * 255,  # code points count, not UTF-16 units
            "of SQL": "'); DROP TABLE orders; --",
            "of placeholders": "%s %(a)s %% {} $1 ? :a",
            "of quotes": "\\ \" ' ` $$ E'\\'' \\x00",
            "like an array": '{a,"b",NULL}',
            "like a number": "123",
            "like null": "null",
            "with spaces at its ends": " both ends ",
            "composed": "caf\xe9",
            "decomposed": "cafe\u0301",
            "in capitals": "CAF\xc9",
            "with zero width": "zero\u200bwidth",
            "of zero width": "\u200b",
            "of direction": "\u202eevil",
            "with a line separator": "\u2028line\u2029",
            "a byte order mark": "\ufeff",
            "a noncharacter": "\ufffe\uffff\U0010ffff",
            "for private use": "\ue000\U000f0000",
            "a replacement": "\ufffd",
        }.items()
    },
}

#: Those of them whose keys are not all ours.
WITH_UNKNOWN_KEYS: Final = {
    "an unknown key",
    "a key of JavaScript's",
    "a text as large as allowed",
    "an event with a wrapper's keys",
    "an envelope's keys beside an event's",
    "numbers that nobody reads",
    "a nesting that nobody reads",
}
