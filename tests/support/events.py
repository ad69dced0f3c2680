"""Events as anybody may send them: what becomes an order, and what is refused for which reason."""

from __future__ import annotations

import gzip
import json
import pickle
from typing import Final

from flashsale.purchases import Reason

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


def _changed(old: bytes, new: bytes) -> bytes:
    assert old in COMMON
    return COMMON.replace(old, new, 1)


def _padded(start: str, size: int) -> bytes:
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
        _changed(b"saleId", rb"sale\u0049d").replace(b"shopper-1", b"escaped"),
        "escaped",
    ),
    "white space all around": (b" \r\n\t" + raw(user_id=' "spaced" ') + b"\n\n \t", "spaced"),
    "as large as allowed": (_padded("large", LIMIT), "large"),
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

#: Bodies that can never become an order, each with its reason.
REFUSED: Final[dict[str, tuple[bytes, Reason]]] = {
    "no bytes": (b"", Reason.JSON),
    "white space": (b" \n", Reason.JSON),
    "truncated": (COMMON[:-1], Reason.JSON),
    "two documents": (COMMON + COMMON, Reason.JSON),
    "two documents on two lines": (COMMON + b"\n" + COMMON, Reason.JSON),
    "a letter behind": (COMMON + b"x", Reason.JSON),
    "a NUL behind": (COMMON + b"\0", Reason.JSON),
    "a form feed behind": (COMMON + b"\f", Reason.JSON),
    "a no-break space behind": (COMMON + "\xa0".encode(), Reason.JSON),
    "a comma behind the last": (_changed(b"}", b",}"), Reason.JSON),
    "a comment": (_changed(b"}", b"/**/}"), Reason.JSON),
    "single quotes": (COMMON.replace(b'"', b"'"), Reason.JSON),
    "keys without quotes": (_changed(b'"saleId"', b"saleId"), Reason.JSON),
    "a line break in a string": (_changed(b"shopper", b"shop\nper"), Reason.JSON),
    "a NUL in a string": (_changed(b"shopper", b"shop\0per"), Reason.JSON),
    "an escape that JSON lacks": (raw(user_id=r'"\x41"'), Reason.JSON),
    "half an escape": (raw(user_id=r'"\u12"'), Reason.JSON),
    "NaN": (raw(rest=',"x":NaN'), Reason.JSON),
    "Infinity": (raw(rest=',"x":-Infinity'), Reason.JSON),
    "NaN as user id": (raw(user_id="NaN"), Reason.JSON),
    "1e999": (raw(rest=',"x":1e999'), Reason.JSON),
    "a number with a leading zero": (raw(user_id="01"), Reason.JSON),
    "a number in full-width digits": (raw(user_id="\uff11"), Reason.JSON),
    "an integer of 400 digits": (raw(user_id="9" * 400), Reason.JSON),
    "an integer of 5000 digits": (raw(user_id="9" * 5_000), Reason.JSON),
    "an open nesting": (b"[" * 60_000, Reason.JSON),
    "a closed nesting": (raw(rest=f',"x":{"[" * 30_000}{"]" * 30_000}'), Reason.JSON),
    "nested objects": (raw(rest=',"x":' + '{"a":' * 12_000), Reason.JSON),
    "thousands of documents": (b"{}" * 30_000, Reason.JSON),
    "a form": (b"saleId=" + SALE.encode() + b"&userId=shopper-1", Reason.JSON),
    "XML": (b"<purchase><userId>shopper-1</userId></purchase>", Reason.JSON),
    "an old pickle": (pickle.dumps({"saleId": SALE}, protocol=0), Reason.JSON),
    "a pickle": (pickle.dumps({"saleId": SALE}), Reason.ENCODING),
    "gzip": (gzip.compress(COMMON, mtime=0), Reason.ENCODING),
    "invalid UTF-8": (_changed(b"shopper", b"shop\xff"), Reason.ENCODING),
    "invalid UTF-8 in an ignored key": (
        raw(rest=',"?":"?"').replace(b"?", b"\xc3"),
        Reason.ENCODING,
    ),
    "invalid UTF-8 between strings": (_changed(b"{", b"{\xa0"), Reason.ENCODING),
    "a lone continuation byte": (_changed(b"shopper", b"\x80"), Reason.ENCODING),
    "a cut character": (_changed(b"shopper-1", b"\xf0\x9f\x98"), Reason.ENCODING),
    "a coded surrogate": (_changed(b"shopper", b"\xed\xa0\x80"), Reason.ENCODING),
    "a pair of coded surrogates": (
        _changed(b"shopper", b"\xed\xa0\xbd\xed\xb8\x80"),
        Reason.ENCODING,
    ),
    "an overlong slash": (_changed(b"shopper", b"\xc0\xaf"), Reason.ENCODING),
    "an overlong NUL": (_changed(b"shopper", b"\xc0\x80"), Reason.ENCODING),
    "an overlong quote": (_changed(b"shopper", b"\xe0\x80\xa2"), Reason.ENCODING),
    "a character beyond the last": (_changed(b"shopper", b"\xf4\x90\x80\x80"), Reason.ENCODING),
    "a character of five bytes": (_changed(b"shopper", b"\xf8\x88\x80\x80\x80"), Reason.ENCODING),
    "Latin-1": (_changed(b"shopper", "é".encode("latin-1")), Reason.ENCODING),
    "byte order mark": (b"\xef\xbb\xbf" + COMMON, Reason.ENCODING),
    "UTF-16": (COMMON.decode().encode("utf-16"), Reason.ENCODING),
    "UTF-16 LE without mark": (COMMON.decode().encode("utf-16-le"), Reason.ENCODING),
    "UTF-16 BE without mark": (COMMON.decode().encode("utf-16-be"), Reason.ENCODING),
    "UTF-32": (COMMON.decode().encode("utf-32"), Reason.ENCODING),
    "UTF-32 BE without mark": (COMMON.decode().encode("utf-32-be"), Reason.ENCODING),
    "null": (b"null", Reason.TYPE),
    "an array": (b"[" + COMMON + b"]", Reason.TYPE),
    "a string": (b'"saleId userId"', Reason.TYPE),
    "an event in a string": (json.dumps(COMMON.decode()).encode(), Reason.TYPE),
    "a number": (b"1", Reason.TYPE),
    "user id a number": (body(userId=123), Reason.TYPE),
    "user id a fraction": (body(userId=1.5), Reason.TYPE),
    "user id a long number": (raw(user_id="9" * 300), Reason.TYPE),
    "user id true": (body(userId=True), Reason.TYPE),
    "user id false": (body(userId=False), Reason.TYPE),
    "user id a list": (body(userId=["shopper-1"]), Reason.TYPE),
    "user id a list of two": (body(userId=["shopper-1", "shopper-2"]), Reason.TYPE),
    "user id an empty list": (body(userId=[]), Reason.TYPE),
    "user id an object": (body(userId={}), Reason.TYPE),
    "sale id a number": (body(saleId=0), Reason.TYPE),
    "sale id a list": (body(saleId=[SALE]), Reason.TYPE),
    "sale id an object": (body(saleId={"id": SALE}), Reason.TYPE),
    "an empty object": (b"{}", Reason.MISSING),
    "user id null": (body(userId=None), Reason.MISSING),
    "sale id null": (body(saleId=None), Reason.MISSING),
    "no user id": (b'{"saleId":"' + SALE.encode() + b'"}', Reason.MISSING),
    "no sale id": (b'{"userId":"shopper-1"}', Reason.MISSING),
    "keys in other case": (_changed(b"saleId", b"saleid"), Reason.MISSING),
    "a key with a look-alike": (_changed(b"saleId", "s\u0430leId".encode()), Reason.MISSING),
    "a key with a space": (_changed(b"saleId", b"saleId "), Reason.MISSING),
    "a wrapper in a wrapper": (b'{"data":{"data":' + COMMON + b"}}", Reason.MISSING),
    "a wrapper around a string": (b'{"pattern":"purchase","data":"x"}', Reason.MISSING),
    "a wrapper around text": (
        json.dumps({"pattern": "purchase", "data": COMMON.decode()}).encode(),
        Reason.MISSING,
    ),
    "a wrapper around a list": (b'{"pattern":"p","data":[' + COMMON + b"]}", Reason.MISSING),
    "a wrapper around nothing": (b'{"pattern":"purchase","data":{}}', Reason.MISSING),
    "a wrapper beside a sale id": (
        b'{"saleId":null,"pattern":"p","data":' + COMMON + b"}",
        Reason.MISSING,
    ),
    "a Dramatiq envelope": (envelope(), Reason.MISSING),
    "an envelope without options": (envelope(options=None), Reason.MISSING),
    "an envelope for a list of actors": (envelope(actor_name=["x"]), Reason.MISSING),
    "an envelope for another queue": (envelope(queue_name="elsewhere"), Reason.MISSING),
    "an envelope for later": (envelope(options={"eta": 32_503_680_000_000}), Reason.MISSING),
    "an envelope with a sequel": (envelope(options={"on_success": "x"}), Reason.MISSING),
    "user id empty": (body(userId=""), Reason.TEXT),
    "user id blank": (body(userId="   "), Reason.TEXT),
    "user id no-break spaces": (body(userId="\xa0\u3000"), Reason.TEXT),
    "user id with NUL": (raw(user_id=r'"a\u0000b"'), Reason.TEXT),
    "user id with a tab": (raw(user_id=r'"a\tb"'), Reason.TEXT),
    "user id with an escape sequence": (raw(user_id=r'"\u001b[2J"'), Reason.TEXT),
    "user id with DEL": (body(userId="a\x7f"), Reason.TEXT),
    "user id with a C1 control": (body(userId="a\x85b"), Reason.TEXT),
    "user id with a high surrogate": (raw(user_id=r'"a\ud800"'), Reason.TEXT),
    "user id with a low surrogate": (raw(user_id=r'"\udfffa"'), Reason.TEXT),
    "user id with a turned pair": (raw(user_id=r'"\ude00\ud83d"'), Reason.TEXT),
    "user id of 256": (body(userId="a" * 256), Reason.LENGTH),
    "user id of 256 outside the BMP": (body(userId="\U0001f600" * 256), Reason.LENGTH),
    "user id long by spaces": (body(userId="a" + " " * 300), Reason.LENGTH),
    "user id long by combining marks": (body(userId="e" + "\u0301" * 255), Reason.LENGTH),
    "a sale's nickname": (body(saleId="sale_1"), Reason.FORMAT),
    "sale id empty": (body(saleId=""), Reason.FORMAT),
    "sale id in braces": (body(saleId=f"{{{SALE}}}"), Reason.FORMAT),
    "sale id as URN": (body(saleId=f"urn:uuid:{SALE}"), Reason.FORMAT),
    "sale id without hyphens": (body(saleId=SALE.replace("-", "")), Reason.FORMAT),
    "sale id with odd hyphens": (
        body(saleId="3f0c-2a1e7b44-4b8e-9f57-0a1b2c3d4e5f"),
        Reason.FORMAT,
    ),
    "sale id with an underscore": (body(saleId=SALE.replace("3f0c", "3f_c")), Reason.FORMAT),
    "sale id in full-width digits": (body(saleId=SALE.replace("3", "\uff13")), Reason.FORMAT),
    "sale id with hyphens of print": (body(saleId=SALE.replace("-", "\u2010")), Reason.FORMAT),
    "sale id with minus signs": (body(saleId=SALE.replace("-", "\u2212")), Reason.FORMAT),
    "sale id with a letter too far": (body(saleId=SALE.replace("f", "g")), Reason.FORMAT),
    "sale id and a line break": (body(saleId=SALE + "\n"), Reason.FORMAT),
    "sale id and a space": (body(saleId=SALE + " "), Reason.FORMAT),
    "sale id and a NUL": (body(saleId=SALE + "\0"), Reason.FORMAT),
    "sale id with a surrogate": (raw(sale_id=rf'"{SALE[:-1]}\ud800"'), Reason.FORMAT),
    "sale id of SQL": (body(saleId="' OR '1'='1"), Reason.FORMAT),
    "sale id twice": (raw(rest=f',"saleId":"{SALE}"'), Reason.DUPLICATE_KEY),
    "user id twice": (raw(rest=',"userId":"shopper-2"'), Reason.DUPLICATE_KEY),
    "user id twice, once escaped": (raw(rest=r',"user\u0049d":"shopper-2"'), Reason.DUPLICATE_KEY),
    "timestamp twice": (raw(rest=',"timestamp":"","timestamp":""'), Reason.DUPLICATE_KEY),
    "an ignored key twice": (raw(rest=',"x":1,"x":1'), Reason.DUPLICATE_KEY),
    "twice below an ignored key": (raw(rest=',"x":[{"y":1,"y":1}]'), Reason.DUPLICATE_KEY),
    "two events in a wrapper": (b'{"data":' + COMMON + b',"data":{}}', Reason.DUPLICATE_KEY),
    "twice inside a wrapper": (
        b'{"data":' + raw(rest=',"userId":"shopper-2"') + b"}",
        Reason.DUPLICATE_KEY,
    ),
    "a byte too large": (_padded("large", LIMIT + 1), Reason.TOO_LARGE),
    "large, and unreadable": (b"\xff" * (LIMIT + 1), Reason.TOO_LARGE),
}
