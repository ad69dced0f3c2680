"""The short form of ``python -m tests.fuzz``, with the same inputs in each run.

A finding of the long one becomes an event of tests/support/events.py.
"""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale import purchases
from flashsale.purchases import Purchase
from tests.fuzz.check import check
from tests.fuzz.inputs import nearly_event
from tests.support.events import ACCEPTED, COMMON, SALE
from tests.support.refusals import REFUSED

steady = settings(derandomize=True, deadline=None, max_examples=500)

texts = st.text(max_size=12) | st.sampled_from(["\x85", "\u2028", "", " ", "\\", '"', "a" * 256])
sale_ids = st.uuids().map(str)
values = sale_ids | texts | st.none() | st.booleans() | st.integers() | st.lists(st.integers())
keys = st.sampled_from(["saleId", "userId", "timestamp", "data", "pattern", "user\\u0049d", "x"])


@st.composite
def members_of_events(draw: st.DrawFn) -> bytes:
    """Objects of the right keys: some missing, twice, or strange."""
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
    return f"{{{encoded}}}".encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", ACCEPTED | REFUSED)
def test_every_known_event_passes(name: str) -> None:
    data, meant = (ACCEPTED | REFUSED)[name]
    assert check(data) == ("purchase" if name in ACCEPTED else meant)


@steady
@given(st.binary(max_size=200) | members_of_events())
def test_anything_is_a_purchase_or_refused_and_all_readings_agree(data: bytes) -> None:
    check(data)


@steady
@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_user_id_is_taken_or_refused_as_the_rules_say(user_id: str) -> None:
    check(Purchase(SALE, user_id).encode())


def test_so_is_every_known_event_that_is_changed_in_some_places() -> None:
    choice = random.Random(2025)
    outcomes = {check(nearly_event(choice)) for _ in range(10_000)}
    refusals = {str(reason) for _, reason in REFUSED.values()} - {"too_large"}
    assert outcomes == refusals | {"purchase"}


def test_so_is_a_good_event_wherever_one_of_its_bytes_is_changed() -> None:
    for position in range(len(COMMON)):
        for byte in b'"\\,:{}[ -0a\0\n\x7f\x80\xc3\xed\xff':
            check(COMMON[:position] + bytes([byte]) + COMMON[position + 1 :])


def test_a_path_that_disagrees_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: here, where the last of two keys counts."""
    lax = json.JSONDecoder(object_pairs_hook=dict)
    monkeypatch.setattr(purchases, "_strict_json", lax)
    with pytest.raises(AssertionError, match="the reference"):
        check(REFUSED["user id twice"][0])
