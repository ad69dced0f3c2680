"""What a dead letter tells of itself, by whatever header, and how letters make groups."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pika.spec import BasicProperties

from flashsale.dead_letters.groups import Group, Groups
from flashsale.dead_letters.letter import DeadLetter
from tests.support.letters import SALE, event

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
LAST = datetime(2026, 1, 2, tzinfo=UTC)
OURS = {
    "x-flashsale-reason": "constraint",
    "x-flashsale-sqlstate": "23514",
    "x-flashsale-explanation": "refused by orders_check",
    "x-flashsale-first-seen": FIRST.isoformat(),
    "x-flashsale-last-seen": LAST.isoformat(),
    "x-flashsale-attempts": 2,
    "x-flashsale-queue": "purchases",
    "x-delivery-count": 3,
}
DIED_AT = datetime(2025, 12, 31, tzinfo=UTC)
# pika gives times without their zone.
DEATH = {"reason": "expired", "queue": "old", "time": DIED_AT.replace(tzinfo=None)}


def read(
    headers: dict[str, Any] | None = None, body: bytes = b"{}", **properties: Any
) -> DeadLetter:
    return DeadLetter.read(BasicProperties(headers=headers, **properties), body, max_bytes=65_536)


def test_a_letter_of_ours_tells_all_that_the_worker_has_written() -> None:
    body = event("alice")

    letter = read(OURS, body)

    assert letter.record() == {
        "id": letter.id,
        "reason": "constraint",
        "sqlstate": "23514",
        "explanation": "refused by orders_check",
        "saleId": SALE,
        "userId": "alice",
        "firstSeen": "2026-01-01T00:00:00+00:00",
        "lastSeen": "2026-01-02T00:00:00+00:00",
        "attempts": 2,
        "refusal": None,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    assert (letter.queue, letter.deliveries) == ("purchases", 3)
    assert (letter.headers, letter.body) == (OURS, body)


def test_a_letter_that_nobody_has_written_on_tells_what_its_body_does() -> None:
    letter = read(None, b"no json")

    assert letter.record() == {
        "id": letter.id,
        "reason": "unknown",
        "sqlstate": None,
        "explanation": None,
        "saleId": None,
        "userId": None,
        "firstSeen": None,
        "lastSeen": None,
        "attempts": None,
        "refusal": "json",
        "bytes": 7,
        "sha256": hashlib.sha256(b"no json").hexdigest(),
    }
    assert (letter.queue, letter.deliveries, letter.headers) == (None, 0, {})


def test_of_a_death_by_rabbitmq_its_own_note_is_told() -> None:
    """The latest comes first; what our worker has written goes before it."""
    earlier = {"reason": "rejected", "queue": "older", "time": "2025-01-01"}

    moved = read({"x-death": [DEATH, earlier]})
    ours = read({"x-death": [DEATH], **OURS})

    assert (moved.reason, moved.queue) == ("broker_expired", "old")
    assert (moved.first_seen, moved.last_seen) == (DIED_AT, DIED_AT)
    assert (ours.reason, ours.queue) == ("constraint", "purchases")
    assert (ours.first_seen, ours.last_seen) == (FIRST, LAST)


@pytest.mark.parametrize("deaths", [None, [], ["forged"], {}, "forged", [{"reason": "Forged!"}]])
def test_a_forged_note_of_a_death_says_nothing(deaths: Any) -> None:
    letter = read({"x-death": deaths, "x-delivery-count": "3"})

    assert (letter.reason, letter.queue, letter.last_seen) == ("unknown", None, None)
    assert letter.deliveries == 0


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("reason", "r_9".ljust(40, "x"), "r_9".ljust(40, "x")),
        ("reason", "x" * 41, "unknown"),
        ("sqlstate", "0A000", "0A000"),
        ("sqlstate", "0a000", None),
        ("sqlstate", "0A0000", None),
        ("attempts", "2", None),
        ("queue", 1, None),
    ],
)
def test_a_header_is_believed_only_in_its_own_form(name: str, value: Any, kept: Any) -> None:
    assert getattr(read({f"x-flashsale-{name}": value}), name) == kept


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("2026-01-02T01:00:00+01:00", LAST),
        ("2026-01-02T00:00:00", LAST),
        (LAST.replace(tzinfo=None), LAST),
        (int(LAST.timestamp()), LAST),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        (2**62, None),
        (b"2026-01-02", None),
    ],
)
def test_a_time_is_read_in_each_form_that_it_comes_in(value: Any, read_as: datetime | None) -> None:
    letter = read({"x-flashsale-last-seen": value})

    assert letter.last_seen == read_as
    assert letter.last_seen is None or letter.last_seen.tzinfo is UTC


def test_a_time_in_seconds_is_utc_wherever_the_command_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        letter = read({"x-flashsale-last-seen": int(LAST.timestamp())})
    finally:
        monkeypatch.undo()
        time.tzset()

    assert letter.last_seen == LAST


def test_the_time_that_its_sender_set_is_the_last_resort() -> None:
    sent_at = int(FIRST.timestamp())

    assert read(timestamp=sent_at).last_seen == FIRST
    assert read(timestamp=sent_at).first_seen is None
    assert read(OURS, timestamp=sent_at).last_seen == LAST


def test_an_id_is_of_all_that_stays_and_of_nothing_that_a_look_changes() -> None:
    first = read({"a": 1, "b": 2})

    assert len(first.id) == 32
    assert first.short_id == first.id[:12]
    assert read({"b": 2, "a": 1}).id == first.id
    for counter in ("x-delivery-count", "x-acquired-count"):
        assert read({"a": 1, "b": 2, counter: 1}).id == first.id
    others = [
        read({"a": 1, "b": 3}),
        read({"a": 1}),
        read(),
        read(message_id="1"),
        read(message_id="2"),
        read(timestamp=1),
        read(timestamp=2),
        read(body=b"[]"),
        read({"a": "\ud800"}),
    ]
    assert len({letter.id for letter in (first, *others)}) == 10


@pytest.mark.parametrize(
    ("document", "ids", "refusal"),
    [
        ({"saleId": "s", "userId": "u"}, ("s", "u"), "format"),
        ({"pattern": "p", "data": {"saleId": "s", "userId": "u"}}, ("s", "u"), "format"),
        ({"saleId": "s", "data": {"saleId": "t", "userId": "u"}}, ("s", None), "missing"),
        ({"userId": "u"}, (None, "u"), "missing"),
        ({"saleId": 1, "userId": "u"}, (None, "u"), "type"),
        ({"saleId": "s", "userId": ["u"]}, ("s", None), "type"),
        ({"data": "s"}, (None, None), "missing"),
        (["saleId"], (None, None), "type"),
        ({"data": {"saleId": SALE, "userId": "u"}}, (SALE, "u"), None),
    ],
)
def test_ids_are_told_also_of_what_the_worker_would_refuse(
    document: Any, ids: tuple[str | None, str | None], refusal: str | None
) -> None:
    letter = read(body=json.dumps(document).encode())

    assert (letter.sale_id, letter.user_id) == ids
    assert letter.refusal == refusal


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff"])
def test_of_a_body_that_cannot_be_read_no_id_is_told(body: bytes) -> None:
    letter = DeadLetter.read(BasicProperties(), body, max_bytes=len(body))

    assert (letter.sale_id, letter.user_id) == (None, None)
    assert letter.refusal in ("json", "encoding")


def test_a_body_over_the_limit_is_not_read() -> None:
    body = b'{"saleId": "s", "userId": "u"}'

    at_limit = DeadLetter.read(BasicProperties(), body, max_bytes=len(body))
    over_it = DeadLetter.read(BasicProperties(), body, max_bytes=len(body) - 1)

    assert (at_limit.sale_id, at_limit.user_id, at_limit.refusal) == ("s", "u", "format")
    assert (over_it.sale_id, over_it.user_id, over_it.refusal) == (None, None, "too_large")


def test_a_group_tells_its_cause_its_number_and_its_time() -> None:
    groups = Groups()
    letters = [
        read({**OURS, "x-flashsale-last-seen": (LAST + timedelta(days)).isoformat()}, body)
        for days, body in [(0, event("a")), (1, b"no json"), (-1, event("b"))]
    ]
    for letter in letters:
        groups.add(letter)

    (group,) = groups.largest_first()

    assert group.record() == {
        "reason": "constraint",
        "sqlstate": "23514",
        "saleId": None,
        "count": 3,
        "refused": 1,
        "firstSeen": "2026-01-01T00:00:00+00:00",
        "lastSeen": "2026-01-03T00:00:00+00:00",
        "example": letters[0].short_id,
    }


def test_a_group_begins_with_its_earliest_letter_as_far_as_is_known() -> None:
    group = Group("json", None, None)
    assert (group.record()["firstSeen"], group.record()["lastSeen"]) == (None, None)

    group.add(read())
    group.add(read({"x-flashsale-last-seen": LAST.isoformat()}))
    assert (group.first_seen, group.last_seen) == (LAST, LAST)
    group.add(read({"x-flashsale-first-seen": FIRST.isoformat()}))

    assert (group.first_seen, group.last_seen) == (FIRST, LAST)
    assert group.count == 3


def test_letters_are_grouped_by_sale_only_where_that_is_asked_for() -> None:
    together, by_sale = Groups(), Groups(by_sale=True)
    for groups in (together, by_sale):
        for sale in ("s", "t", "s"):
            groups.add(read(OURS, b'{"saleId": "%s"}' % sale.encode()))

    assert [(group.sale_id, group.count) for group in together.largest_first()] == [(None, 3)]
    assert [(group.sale_id, group.count) for group in by_sale.largest_first()] == [
        ("s", 2),
        ("t", 1),
    ]


def test_groups_come_by_their_size_and_then_by_their_reason() -> None:
    groups = Groups()
    for reason in ("b", "c", "a", "c"):
        groups.add(read({"x-flashsale-reason": reason}))

    assert [group.reason for group in groups.largest_first()] == ["c", "a", "b"]


def test_a_thousand_causes_are_told_apart_and_a_known_one_is_counted_still() -> None:
    groups = Groups()
    for number in (*range(1_002), 999):
        groups.add(read({"x-flashsale-reason": f"r{number}"}))

    largest = groups.largest_first()

    assert len(largest) == 1_001
    assert [(group.reason, group.count) for group in largest[:3]] == [
        ("others", 2),
        ("r999", 2),
        ("r0", 1),
    ]
    assert (largest[0].sqlstate, largest[0].sale_id) == (None, None)
