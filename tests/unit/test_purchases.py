"""The event on the wire: what becomes a purchase, what is refused, and for which reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale import purchases
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase, Reason

SALE = "3f0c2a1e-7b44-4b8e-9f57-0a1b2c3d4e5f"
TIME = "2025-11-22T19:49:12.345Z"
COMMON = f'{{"saleId":"{SALE}","userId":"shopper-1","timestamp":"{TIME}"}}'.encode()

# The same examples in each run: a finding of the fuzzer becomes a case of its own above.
steady = settings(derandomize=True, deadline=None, max_examples=300)


def body(**fields: object) -> bytes:
    """An event as JSON.stringify writes it, with some fields set otherwise."""
    event = {"saleId": SALE, "userId": "shopper-1", "timestamp": TIME} | fields
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def raw(sale_id: str = f'"{SALE}"', user_id: str = '"shopper-1"', rest: str = "") -> bytes:
    """An event whose values are JSON text, for what json.dumps would not write."""
    return f'{{"saleId":{sale_id},"userId":{user_id}{rest}}}'.encode()


def outcome(data: bytes) -> Purchase | str:
    """The purchase, or the reason why there is none; anything else is an error of the test."""
    try:
        return Purchase.parse(data)
    except EventRefused as refusal:
        return Reason(refusal.reason)


def strict_outcome(data: bytes) -> Purchase | str:
    try:
        return purchases._parse_strictly(data)
    except EventRefused as refusal:
        return Reason(refusal.reason)


class TestAccepted:
    def test_the_api_s_event_is_read_field_by_field(self) -> None:
        assert Purchase(SALE, "shopper-1", TIME) == Purchase.parse(COMMON)

    def test_an_event_is_encoded_exactly_as_the_api_sends_it(self) -> None:
        assert Purchase(SALE, "shopper-1", TIME).encode() == COMMON

    def test_unknown_keys_are_ignored(self) -> None:
        assert Purchase.parse(COMMON) == Purchase.parse(body(v=2, extra={"saleId": None}, a=[1.5]))

    def test_the_order_of_keys_and_white_space_do_not_matter(self) -> None:
        spaced = f' {{\n"userId" : "shopper-1", "timestamp":"{TIME}",\t"saleId":"{SALE}"}}\r\n'
        assert Purchase.parse(COMMON) == Purchase.parse(spaced.encode())

    def test_nestjs_s_wrapper_is_understood(self) -> None:
        wrapped = b'{"pattern":"purchase","data":' + COMMON + b',"id":"1"}'
        assert Purchase.parse(COMMON) == Purchase.parse(wrapped)

    def test_only_one_wrapper_is_taken_off(self) -> None:
        twice = b'{"data":{"data":' + COMMON + b"}}"
        assert outcome(twice) == Reason.MISSING

    def test_an_event_with_its_own_sale_id_is_not_taken_for_a_wrapper(self) -> None:
        assert Purchase.parse(body(data={"userId": "other"})).user_id == "shopper-1"

    def test_an_upper_case_sale_id_names_the_same_sale(self) -> None:
        assert Purchase.parse(body(saleId=SALE.upper())).sale_id == SALE

    @pytest.mark.parametrize(
        "user_id",
        [
            "a" * 255,
            "\U0001f600" * 255,  # code points count, neither bytes nor UTF-16 units
            "' OR 1=1 --",
            '%s %(a)s $1 \\ "',
            " trailing ",
            "\u202eevil",  # bidirectional override
            "zero\u200bwidth",
            "\u2028line",
        ],
    )
    def test_any_other_user_id_is_kept_as_it_is(self, user_id: str) -> None:
        assert user_id == Purchase.parse(body(userId=user_id)).user_id

    def test_composed_and_decomposed_letters_are_different_shoppers(self) -> None:
        composed, decomposed = (Purchase.parse(body(userId=one)) for one in ("\xe9", "e\u0301"))
        assert composed != decomposed

    def test_an_escaped_surrogate_pair_is_one_character(self) -> None:
        assert Purchase.parse(raw(user_id=r'"\ud83d\ude00"')).user_id == "\U0001f600"


REFUSED = {
    "no bytes": (b"", Reason.JSON),
    "white space": (b" \n", Reason.JSON),
    "truncated": (COMMON[:-1], Reason.JSON),
    "two documents": (COMMON + COMMON, Reason.JSON),
    "single quotes": (COMMON.replace(b'"', b"'"), Reason.JSON),
    "a line break in a string": (COMMON.replace(b"shopper", b"shop\nper"), Reason.JSON),
    "a NUL in a string": (COMMON.replace(b"shopper", b"shop\0per"), Reason.JSON),
    "NaN": (raw(rest=',"x":NaN'), Reason.JSON),
    "Infinity": (raw(rest=',"x":-Infinity'), Reason.JSON),
    "NaN as user id": (raw(user_id="NaN"), Reason.JSON),
    "1e999": (raw(rest=',"x":1e999'), Reason.JSON),
    "an integer of 5000 digits": (raw(user_id="9" * 5_000), Reason.JSON),
    "an open nesting": (b"[" * 60_000, Reason.JSON),
    "invalid UTF-8": (COMMON.replace(b"shopper", b"shop\xff"), Reason.ENCODING),
    "invalid UTF-8 in an ignored key": (
        raw(rest=',"?":"?"').replace(b"?", b"\xc3"),
        Reason.ENCODING,
    ),
    "a coded surrogate": (COMMON.replace(b"shopper", b"\xed\xa0\x80"), Reason.ENCODING),
    "an overlong form": (COMMON.replace(b"shopper", b"\xc0\xaf"), Reason.ENCODING),
    "byte order mark": (b"\xef\xbb\xbf" + COMMON, Reason.ENCODING),
    "UTF-16": (COMMON.decode().encode("utf-16"), Reason.ENCODING),
    "UTF-16 LE without mark": (COMMON.decode().encode("utf-16-le"), Reason.ENCODING),
    "UTF-16 BE without mark": (COMMON.decode().encode("utf-16-be"), Reason.ENCODING),
    "UTF-32": (COMMON.decode().encode("utf-32"), Reason.ENCODING),
    "UTF-32 BE without mark": (COMMON.decode().encode("utf-32-be"), Reason.ENCODING),
    "gzip": (bytes.fromhex("1f8b0800000000000003"), Reason.ENCODING),
    "null": (b"null", Reason.TYPE),
    "an array": (b"[" + COMMON + b"]", Reason.TYPE),
    "a string": (b'"saleId userId"', Reason.TYPE),
    "a number": (b"1", Reason.TYPE),
    "user id a number": (body(userId=123), Reason.TYPE),
    "user id a long number": (raw(user_id="9" * 300), Reason.TYPE),
    "user id true": (body(userId=True), Reason.TYPE),
    "user id false": (body(userId=False), Reason.TYPE),
    "user id a list": (body(userId=["shopper-1"]), Reason.TYPE),
    "user id an object": (body(userId={}), Reason.TYPE),
    "sale id a number": (body(saleId=0), Reason.TYPE),
    "sale id a list": (body(saleId=[SALE]), Reason.TYPE),
    "an empty object": (b"{}", Reason.MISSING),
    "user id null": (body(userId=None), Reason.MISSING),
    "sale id null": (body(saleId=None), Reason.MISSING),
    "no user id": (b'{"saleId":"' + SALE.encode() + b'"}', Reason.MISSING),
    "no sale id": (b'{"userId":"shopper-1"}', Reason.MISSING),
    "keys in other case": (COMMON.replace(b"saleId", b"saleid"), Reason.MISSING),
    "a wrapper around no object": (b'{"pattern":"purchase","data":"x"}', Reason.MISSING),
    "a Dramatiq envelope": (
        b'{"queue_name":"purchase","actor_name":"confirm","args":["x"],"kwargs":{},"options":{}}',
        Reason.MISSING,
    ),
    "user id empty": (body(userId=""), Reason.TEXT),
    "user id blank": (body(userId="   "), Reason.TEXT),
    "user id no-break spaces": (body(userId="\xa0\u3000"), Reason.TEXT),
    "user id with NUL": (raw(user_id=r'"a\u0000b"'), Reason.TEXT),
    "user id with a tab": (raw(user_id=r'"a\tb"'), Reason.TEXT),
    "user id with DEL": (body(userId="a\x7f"), Reason.TEXT),
    "user id with a C1 control": (body(userId="a\x85b"), Reason.TEXT),
    "user id with a high surrogate": (raw(user_id=r'"a\ud800"'), Reason.TEXT),
    "user id with a low surrogate": (raw(user_id=r'"\udfffa"'), Reason.TEXT),
    "user id of 256": (body(userId="a" * 256), Reason.LENGTH),
    "user id of 256 outside the BMP": (body(userId="\U0001f600" * 256), Reason.LENGTH),
    "user id long by spaces": (body(userId="a" + " " * 300), Reason.LENGTH),
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
    "sale id and a line break": (body(saleId=SALE + "\n"), Reason.FORMAT),
    "sale id and a space": (body(saleId=SALE + " "), Reason.FORMAT),
    "sale id twice": (raw(rest=f',"saleId":"{SALE}"'), Reason.DUPLICATE_KEY),
    "user id twice": (raw(rest=',"userId":"shopper-2"'), Reason.DUPLICATE_KEY),
    "user id twice, once escaped": (raw(rest=r',"user\u0049d":"shopper-2"'), Reason.DUPLICATE_KEY),
    "timestamp twice": (raw(rest=',"timestamp":"","timestamp":""'), Reason.DUPLICATE_KEY),
    "an ignored key twice": (raw(rest=',"x":1,"x":1'), Reason.DUPLICATE_KEY),
    "two events in a wrapper": (b'{"data":' + COMMON + b',"data":{}}', Reason.DUPLICATE_KEY),
    "twice inside a wrapper": (
        b'{"data":' + raw(rest=',"userId":"shopper-2"') + b"}",
        Reason.DUPLICATE_KEY,
    ),
}


class TestRefused:
    @pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
    def test_a_bad_event_is_refused_with_its_reason(self, data: bytes, reason: Reason) -> None:
        assert reason == outcome(data)

    def test_the_same_key_twice_is_refused_where_the_quotes_are_those_of_a_good_event(self) -> None:
        """Twelve quotes and two different keys: the count alone proves nothing."""
        data = raw(rest=',"userId":"shopper-2"')
        assert data.count(b'"') == 12
        assert outcome(data) == Reason.DUPLICATE_KEY

    def test_a_document_nested_deeper_than_the_stack_is_refused(self) -> None:
        depth = 500_000
        data = raw(rest=f',"x":{"[" * depth}{"]" * depth}')
        with pytest.raises(EventRefused) as caught:
            Purchase.parse(data, max_bytes=len(data))
        assert caught.value.reason == Reason.JSON

    def test_the_limit_counts_bytes_and_is_itself_allowed(self) -> None:
        data = body(userId="é")
        assert Purchase.parse(data, max_bytes=len(data)).user_id == "é"
        with pytest.raises(EventRefused) as caught:
            Purchase.parse(data, max_bytes=len(data) - 1)
        assert caught.value.reason == Reason.TOO_LARGE

    def test_a_body_over_the_limit_is_not_read(self) -> None:
        """Its other faults stay unknown: size comes before everything."""
        assert outcome(b"\xff" * 65_537) == Reason.TOO_LARGE

    @pytest.mark.parametrize(
        "data",
        [
            body(userId="canary\x07canary"),
            body(userId="canary" * 100),
            body(userId=["canary"]),
            body(saleId="canary"),
            body(userId="canary")[:-1],
            body(userId="canary", x=float("nan")),
            raw(rest=',"canary":1,"canary":1'),
            b'{"canary":"\xff"}',
            b'"canary"',
            b"canary",
            b"canary" * 20_000,
        ],
    )
    def test_the_explanation_holds_no_part_of_the_body(self, data: bytes) -> None:
        with pytest.raises(EventRefused) as caught:
            Purchase.parse(data)
        assert "canary" not in str(caught.value)
        assert caught.value.__suppress_context__, "the cause would show the body in a traceback"

    def test_the_reasons_are_what_dead_letters_have_always_said(self) -> None:
        """Codes are contract: tools select dead letters by them."""
        assert {
            *("encoding", "json", "type", "missing", "text", "length", "format", "duplicate_key"),
            *("too_large", "unknown_sale", "constraint", "unclassified", "poison"),
        } == {str(reason) for reason in Reason}


class TestTimestamp:
    @pytest.mark.parametrize("value", [None, 1e18, 1763840952345, True, [], {"a": 1}])
    def test_one_that_is_no_text_costs_no_order_and_is_dropped(self, value: object) -> None:
        assert Purchase(SALE, "shopper-1", None) == Purchase.parse(body(timestamp=value))

    def test_one_that_is_missing_costs_no_order(self) -> None:
        assert Purchase(SALE, "shopper-1", None) == Purchase.parse(raw())

    def test_one_that_cannot_be_encoded_again_is_dropped(self) -> None:
        assert Purchase.parse(raw(rest=r',"timestamp":"\ud800"')).timestamp is None

    @pytest.mark.parametrize(
        "value",
        [
            *("", "now", "today", "infinity", "-infinity", "1763840952345", "2025-11-22"),
            *("2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "294276-01-01T00:00:00Z"),
            *("2025-11-22T24:00:00Z", "2025-11-22T19:60:00Z", "2016-12-31T23:59:60Z"),
            *("2025-11-22T19:49:12", "2025-11-22 19:49:12Z", "2025-W47-6T19:49:12Z"),
            *("2025-11-22T19:49:12+0100", "2025-11-22T19:49:12+24:00", "2025-11-22T19:49:12+01:60"),
            *("2025-11-22T19:49:12,5Z", "2025-11-22T19:49:12.Z", "20251122T194912Z"),
            *("2025-11-22T19:49:12Z\n", " 2025-11-22T19:49:12Z", "\uff12025-11-22T19:49:12Z"),
        ],
    )
    def test_one_that_is_no_rfc_3339_time_is_kept_as_text_and_gives_no_time(
        self, value: str
    ) -> None:
        purchase = Purchase.parse(body(timestamp=value))
        assert (value, None) == (purchase.timestamp, purchase.occurred_at)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (TIME, datetime(2025, 11, 22, 19, 49, 12, 345_000, UTC)),
            ("2025-11-22T19:49:12Z", datetime(2025, 11, 22, 19, 49, 12, 0, UTC)),
            ("2025-11-22t21:49:12+02:00", datetime(2025, 11, 22, 19, 49, 12, 0, UTC)),
            ("2025-11-22T19:49:12-00:00", datetime(2025, 11, 22, 19, 49, 12, 0, UTC)),
            ("2025-11-22T19:49:12.5z", datetime(2025, 11, 22, 19, 49, 12, 500_000, UTC)),
            ("2025-11-22T19:49:12.1234569Z", datetime(2025, 11, 22, 19, 49, 12, 123_456, UTC)),
        ],
    )
    def test_one_by_rfc_3339_is_an_aware_time(self, value: str, expected: datetime) -> None:
        occurred_at = Purchase(SALE, "shopper-1", value).occurred_at
        assert occurred_at is not None
        assert expected == occurred_at
        assert occurred_at.tzinfo is not None

    @pytest.mark.parametrize("value", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
    def test_a_lag_can_be_taken_from_the_first_and_the_last_time(self, value: str) -> None:
        """In UTC these two are outside the years Python has."""
        occurred_at = Purchase(SALE, "shopper-1", value).occurred_at
        assert occurred_at is not None
        assert timedelta(days=365) < abs(datetime(2025, 11, 22, tzinfo=UTC) - occurred_at)

    @steady
    @given(st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789TZ:-+."), max_size=40))
    def test_reading_it_never_raises(self, value: str) -> None:
        occurred_at = Purchase(SALE, "shopper-1", value).occurred_at
        assert occurred_at is None or occurred_at.tzinfo is not None


texts = st.text(max_size=12) | st.sampled_from(
    ["é", "\x85", "\u2028", "", " ", "\\", '"', "a" * 256]
)
sale_ids = st.uuids().map(str)
values = sale_ids | texts | st.none() | st.booleans() | st.integers() | st.lists(st.integers())
keys = st.sampled_from(["saleId", "userId", "timestamp", "data", "pattern", "user\\u0049d", "x"])


@st.composite
def nearly_events(draw: st.DrawFn) -> bytes:
    """Bodies near the common one: members missing, twice, strange; then a few bytes changed."""
    members = draw(
        st.lists(st.tuples(keys, values), max_size=4)
        | st.tuples(
            st.tuples(st.just("saleId"), sale_ids | sale_ids.map(str.upper)),
            st.tuples(st.just("userId"), texts),
            st.tuples(st.sampled_from(["timestamp", "userId", "x"]), values),
        ).flatmap(st.permutations)
    )
    escaped = draw(st.booleans())
    encoded = ",".join(
        f'"{key}":{json.dumps(value, ensure_ascii=escaped)}' for key, value in members
    )
    data = bytearray(f"{{{encoded}}}".encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        position = draw(st.integers(0, len(data)))
        width = draw(st.integers(0, 2))
        data[position : position + width] = draw(
            st.binary(max_size=2)
            | st.sampled_from([b'"', b"\\", b",", b"\0", b"\xed\xa0\x80", b"}"])
        )
    return bytes(data)


class TestBothPaths:
    @steady
    @given(nearly_events())
    def test_the_common_and_the_strict_path_agree(self, data: bytes) -> None:
        """The common path is only a quicker way to the same answer."""
        assert strict_outcome(data) == outcome(data)

    @pytest.mark.parametrize("data", [data for data, _ in REFUSED.values()], ids=REFUSED)
    def test_they_agree_on_every_known_bad_event(self, data: bytes) -> None:
        assert strict_outcome(data) == outcome(data)

    def test_they_agree_wherever_one_byte_of_a_good_event_is_changed(self) -> None:
        for position in range(len(COMMON)):
            for byte in b'"\\,:{}[ -0a\0\n\x7f\x80\xc3\xed\xff':
                changed = COMMON[:position] + bytes([byte]) + COMMON[position + 1 :]
                assert strict_outcome(changed) == outcome(changed), changed

    @steady
    @given(st.binary(max_size=200) | nearly_events())
    def test_any_bytes_are_a_purchase_or_refused(self, data: bytes) -> None:
        assert isinstance(outcome(data), Purchase | Reason)

    @steady
    @given(
        sale_ids,
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=255),
        st.none() | st.text(st.characters(codec="utf-8")),
    )
    def test_an_encoded_purchase_is_read_back_the_same(
        self, sale_id: str, user_id: str, timestamp: str | None
    ) -> None:
        purchase = Purchase(sale_id, user_id if user_id.strip() else "shopper-1", timestamp)
        assert purchase == Purchase.parse(purchase.encode())

    def test_the_common_event_takes_the_common_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sale's pace rests on it; a change that loses it should be seen here."""
        monkeypatch.delattr(purchases, "_parse_strictly")
        assert Purchase.parse(COMMON).user_id == "shopper-1"

    def test_the_cache_of_sale_ids_is_bounded_and_keeps_no_refused_text(self) -> None:
        before = purchases._canonical_sale_id.cache_info()
        assert outcome(body(saleId="x" * 10_000)) == Reason.FORMAT
        assert before.maxsize is not None
        assert before.currsize == purchases._canonical_sale_id.cache_info().currsize
