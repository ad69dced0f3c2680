"""The event on the wire: what becomes a purchase, what is refused, and for which reason.

tests/fuzz holds both of its paths against a plain reading of the same rules.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale import purchases
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase, Reason
from tests.support.events import ACCEPTED, COMMON, SALE, TIME, body, raw
from tests.support.refusals import REFUSED

# The same examples in each run.
steady = settings(derandomize=True, deadline=None, max_examples=300)


def outcome(data: bytes) -> Purchase | str:
    """The purchase, or the reason why there is none; anything else is an error of the test."""
    try:
        return Purchase.parse(data)
    except EventRefused as refusal:
        return Reason(refusal.reason)


class TestAccepted:
    def test_the_api_s_event_is_read_field_by_field(self) -> None:
        assert Purchase(SALE, "shopper-1", TIME) == Purchase.parse(COMMON)

    def test_an_event_is_encoded_exactly_as_the_api_sends_it(self) -> None:
        assert Purchase(SALE, "shopper-1", TIME).encode() == COMMON

    def test_a_sale_id_in_upper_case_is_read_in_lower_case_and_the_rest_as_sent(self) -> None:
        for event in (body(saleId=SALE.upper()), body(saleId=SALE.upper(), v=2)):
            assert Purchase(SALE, "shopper-1", TIME) == Purchase.parse(event)

    @pytest.mark.parametrize(("data", "user_id"), ACCEPTED.values(), ids=ACCEPTED)
    def test_a_good_event_is_read_whatever_stands_around_it(
        self, data: bytes, user_id: str
    ) -> None:
        purchase = Purchase.parse(data)
        assert (SALE, user_id) == (purchase.sale_id, purchase.user_id)

    @pytest.mark.parametrize(
        ("data", "calls"),
        [
            (COMMON, 0),
            (raw(), 0),  # without a timestamp
            (b'{"pattern":"purchase","data":' + COMMON + b"}", 0),
            (raw(user_id=r'"a \"quote\""'), 0),
            (body(v=2), 1),
            (body(v=2, w={"x": 1}), 1),
            (raw(rest=',"":0'), 1),
            (b'{"data":' + body(v=2) + b"}", 1),
        ],
    )
    def test_keys_that_say_nothing_are_told_once_an_event(self, data: bytes, calls: int) -> None:
        told: list[None] = []
        Purchase.parse(data, on_unknown_keys=lambda: told.append(None))
        assert len(told) == calls

    def test_composed_and_decomposed_letters_are_different_shoppers(self) -> None:
        composed, decomposed = (Purchase.parse(body(userId=one)) for one in ("\xe9", "e\u0301"))
        assert composed != decomposed


class TestRefused:
    def test_the_keys_of_a_refused_event_are_nobody_s_concern(self) -> None:
        with pytest.raises(EventRefused):
            Purchase.parse(body(userId="", v=2), on_unknown_keys=pytest.fail)

    @pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
    def test_a_bad_event_is_refused_with_its_reason(self, data: bytes, reason: Reason) -> None:
        assert reason == outcome(data)

    @pytest.mark.parametrize(
        ("data", "refusal"),
        [
            (b"x" * 65_537, "too_large: the body has 65537 bytes, 65536 are allowed"),
            (b'{"x":"\xff"}', "encoding: the body is not UTF-8 from byte 6 on"),
            *(
                (
                    COMMON.decode().encode(codec),
                    "encoding: the body is not plain UTF-8: a byte order mark, UTF-16 or UTF-32",
                )
                for codec in ("utf-8-sig", "utf-16-le", "utf-32-be")
            ),
            (b"nul", "json: the body is not one JSON document, from character 0 on"),
            # A zero byte behind the fourth is a mistake, and no sign of another encoding.
            (b"null\0", "json: the body is not one JSON document, from character 4 on"),
            (b"[" * 60_000, "json: the document nests too deep"),
            (raw(rest=',"x":-1e999'), "json: a number is too large"),
            (raw(rest=',"x":NaN'), "json: NaN and Infinity are not JSON"),
            (raw(rest=',"x":1,"x":1'), "duplicate_key: an object names a key twice"),
            (b"[]", "type: the document is not an object"),
            (body(saleId=1), "type: saleId is not a string"),
            (body(userId=1), "type: userId is not a string"),
            (body(saleId=None), "missing: saleId is missing"),
            (body(userId=None), "missing: userId is missing"),
            (body(saleId="sale_1"), "format: saleId is not a UUID of 36 characters"),
            (body(userId="a" * 256), "length: userId has more than 255 characters"),
            (body(userId=" "), "text: userId is blank"),
            (body(userId="a\x7f"), "text: userId holds a control character"),
            (raw(user_id=r'"\ud800"'), "text: userId holds half of a surrogate pair"),
        ],
    )
    def test_a_refusal_says_in_words_what_is_wrong(self, data: bytes, refusal: str) -> None:
        with pytest.raises(EventRefused) as caught:
            Purchase.parse(data)
        assert str(caught.value) == refusal
        assert refusal == f"{caught.value.reason}: {caught.value.explanation}"

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

    def test_no_reason_that_dead_letters_have_ever_said_is_gone(self) -> None:
        """Codes are contract: tools select dead letters by them, and old letters wait for years."""
        assert {
            *("encoding", "json", "type", "missing", "text", "length", "format", "duplicate_key"),
            *("too_large", "unknown_sale", "constraint", "unclassified", "poison"),
        } <= {str(reason) for reason in Reason}


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
            *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),  # other years in UTC
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
        assert occurred_at.tzinfo is UTC


class TestPace:
    def test_the_common_event_takes_the_common_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sale's pace rests on it; a change that loses it should be seen here."""
        monkeypatch.delattr(purchases, "_parse_strictly")
        assert Purchase.parse(COMMON).user_id == "shopper-1"

    def test_the_cache_of_sale_ids_is_bounded_and_keeps_no_refused_text(self) -> None:
        before = purchases._canonical_sale_id.cache_info()
        assert outcome(body(saleId="x" * 10_000)) == Reason.FORMAT
        assert before.maxsize is not None
        assert before.currsize == purchases._canonical_sale_id.cache_info().currsize


@steady
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789TZ:-+."), max_size=40))
def test_reading_a_timestamp_never_raises(value: str) -> None:
    occurred_at = Purchase(SALE, "shopper-1", value).occurred_at
    assert occurred_at is None or occurred_at.tzinfo is not None


@steady
@given(
    st.uuids().map(str),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=255),
    st.none() | st.text(st.characters(codec="utf-8")),
)
def test_an_encoded_purchase_is_read_back_the_same(
    sale_id: str, user_id: str, timestamp: str | None
) -> None:
    purchase = Purchase(sale_id, user_id if user_id.strip() else "shopper-1", timestamp)
    assert purchase == Purchase.parse(purchase.encode())
