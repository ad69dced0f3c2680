"""Bodies that are nearly events: those that are known, changed in some places."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.events import ACCEPTED, COMMON, SALE, TIME
from tests.support.refusals import REFUSED

#: Of an input, in bytes.
LONGEST = 4_096

# What the changes start from: most of what they make is bad, so these are mostly good.
_GOOD = [data for data, _ in ACCEPTED.values() if len(data) <= LONGEST]
_KNOWN = [data for data, _ in (ACCEPTED | REFUSED).values() if len(data) <= LONGEST]
# What means something in an event, or in what might be taken for one.
_TOKENS = [
    *(b'"saleId"', b'"userId"', b'"timestamp"', b'"data"', b'"pattern"', rb'"user\u0049d"', b'"x"'),
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b'\\"', b" ", b"\t", b"\n", b"\f", b"\0"),
    *(b"null", b"true", b"false", b"NaN", b"-Infinity", b"0", b"-", b"1e999", b"1.5", b"9" * 400),
    *(rb"\u0000", rb"\ud83d", rb"\ude00", rb"\ud800", rb"\n", rb"\x", rb"\u00", rb"\/", rb"\u2028"),
    *(b"\xff", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80"),
    *(b"\xef\xbb\xbf", b"\xc2\x85", b"\x7f", b"\xe2\x80\xa8", b"\xc2\xa0", b"\xef\xbf\xbf"),
    *(SALE.encode(), SALE.upper().encode(), TIME.encode(), b"a" * 255, b"\xc3\xa9" * 128, b" " * 9),
]


def nearly_event(choice: random.Random) -> bytes:
    """A known body after a few changes."""
    return changed(choice.choice((COMMON, choice.choice(_GOOD), choice.choice(_KNOWN))), choice)


def changed(data: bytes, choice: random.Random) -> bytes:
    """A body after one to three changes."""
    changing = bytearray(data)
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        choice.choice(_CHANGES)(changing, choice)
    return bytes(changing[:LONGEST])


def _span(data: bytearray, choice: random.Random) -> slice:
    start = choice.randint(0, len(data))
    return slice(start, start + choice.choice((0, 1, 1, 2, 4, 16)))


def _put_token(data: bytearray, choice: random.Random) -> None:
    data[_span(data, choice)] = choice.choice(_TOKENS)


def _put_text(data: bytearray, choice: random.Random) -> None:
    data[_span(data, choice)] = bytes(choice.choices(range(0x20, 0x80), k=choice.randint(0, 3)))


def _put_bytes(data: bytearray, choice: random.Random) -> None:
    data[_span(data, choice)] = choice.randbytes(1)


def _repeat(data: bytearray, choice: random.Random) -> None:
    span = _span(data, choice)
    data[span.start : span.start] = data[span] * choice.choice((1, 1, 2, 60))


def _escape(data: bytearray, choice: random.Random) -> None:
    span = slice(start := choice.randint(0, len(data)), start + 1)
    data[span] = b"".join(b"\\u%04x" % byte for byte in data[span])


def _splice(data: bytearray, choice: random.Random) -> None:
    other = choice.choice(_KNOWN)
    data[_span(data, choice)] = other[choice.randint(0, len(other)) :][:200]


_CHANGES: list[Callable[[bytearray, random.Random], None]] = [
    *(_put_token, _put_token, _put_token, _put_text, _put_text, _put_bytes, _repeat, _escape),
    _splice,
]
