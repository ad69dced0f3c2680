"""What can never become an order: by the rules, written once more and plainly, and by example.

The rules take nothing from the decoder that they are to check, and refuse at the first fault as it
does.
"""

from __future__ import annotations

import gzip
import json
import pickle
from typing import Any, Final, NamedTuple

from flashsale.purchases import Reason
from tests.support.events import COMMON, LIMIT, SALE, body, changed, envelope, padded, raw
from tests.support.plain_json import HEX, Refusal, document


class Event(NamedTuple):
    sale_id: str
    user_id: str
    timestamp: str | None


def read(body: bytes, limit: int) -> Event:
    """The event in a body.

    Raises:
        Refusal: it holds none.
        RecursionError: it nests too deep for this reader.
    """
    if len(body) > limit:
        raise Refusal("too_large")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("encoding") from None
    if text.startswith("\ufeff") or b"\0" in body[:4]:  # as in UTF-16 and UTF-32
        raise Refusal("encoding")
    event = document(text)
    if not isinstance(event, dict):
        raise Refusal("type")
    if "saleId" not in event and isinstance(event.get("data"), dict):
        event = event["data"]
    sale_id, user_id = _id(event, "saleId"), _id(event, "userId")
    _check_sale_id(sale_id)
    _check_user_id(user_id)
    timestamp = event.get("timestamp")
    if not isinstance(timestamp, str) or any(map(_is_surrogate, timestamp)):
        timestamp = None
    return Event(sale_id.lower(), user_id, timestamp)


def _id(event: dict[str, Any], key: str) -> str:
    if event.get(key) is None:
        raise Refusal("missing")
    if not isinstance(event[key], str):
        raise Refusal("type")
    return str(event[key])


def _check_sale_id(sale_id: str) -> None:
    groups = sale_id.split("-")
    if [len(group) for group in groups] != [8, 4, 4, 4, 12]:
        raise Refusal("format")
    if any(digit not in HEX for group in groups for digit in group):
        raise Refusal("format")


def _check_user_id(user_id: str) -> None:
    if len(user_id) > 255:
        raise Refusal("length")
    if all(character.isspace() for character in user_id):  # also where there is none
        raise Refusal("text")
    for character in user_id:
        if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or _is_surrogate(character):
            raise Refusal("text")


def _is_surrogate(character: str) -> bool:
    return 0xD800 <= ord(character) < 0xE000


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
    "a comma behind the last": (changed(b"}", b",}"), Reason.JSON),
    "a comment": (changed(b"}", b"/**/}"), Reason.JSON),
    "single quotes": (COMMON.replace(b'"', b"'"), Reason.JSON),
    "keys without quotes": (changed(b'"saleId"', b"saleId"), Reason.JSON),
    "a line break in a string": (changed(b"shopper", b"shop\nper"), Reason.JSON),
    "a NUL in a string": (changed(b"shopper", b"shop\0per"), Reason.JSON),
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
    "invalid UTF-8": (changed(b"shopper", b"shop\xff"), Reason.ENCODING),
    "invalid UTF-8 in an ignored key": (
        raw(rest=',"?":"?"').replace(b"?", b"\xc3"),
        Reason.ENCODING,
    ),
    "invalid UTF-8 between strings": (changed(b"{", b"{\xa0"), Reason.ENCODING),
    "a lone continuation byte": (changed(b"shopper", b"\x80"), Reason.ENCODING),
    "a cut character": (changed(b"shopper-1", b"\xf0\x9f\x98"), Reason.ENCODING),
    "a coded surrogate": (changed(b"shopper", b"\xed\xa0\x80"), Reason.ENCODING),
    "a pair of coded surrogates": (
        changed(b"shopper", b"\xed\xa0\xbd\xed\xb8\x80"),
        Reason.ENCODING,
    ),
    "an overlong slash": (changed(b"shopper", b"\xc0\xaf"), Reason.ENCODING),
    "an overlong NUL": (changed(b"shopper", b"\xc0\x80"), Reason.ENCODING),
    "an overlong quote": (changed(b"shopper", b"\xe0\x80\xa2"), Reason.ENCODING),
    "a character beyond the last": (changed(b"shopper", b"\xf4\x90\x80\x80"), Reason.ENCODING),
    "a character of five bytes": (changed(b"shopper", b"\xf8\x88\x80\x80\x80"), Reason.ENCODING),
    "Latin-1": (changed(b"shopper", "é".encode("latin-1")), Reason.ENCODING),
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
    "keys in other case": (changed(b"saleId", b"saleid"), Reason.MISSING),
    "a key with a look-alike": (changed(b"saleId", "s\u0430leId".encode()), Reason.MISSING),
    "a key with a space": (changed(b"saleId", b"saleId "), Reason.MISSING),
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
    "a byte too large": (padded("large", LIMIT + 1), Reason.TOO_LARGE),
    "large, and unreadable": (b"\xff" * (LIMIT + 1), Reason.TOO_LARGE),
}
