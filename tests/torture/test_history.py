"""The account must find every kind of loss: each test plants one."""

from __future__ import annotations

import pytest

from tests.torture.history import (
    AuditRow,
    DeadLetter,
    Event,
    Found,
    History,
    Key,
    Verdict,
    judge,
)

ANNA, BERT = Key("sale", "anna"), Key("sale", "bert")
GOOD = Event(b"anna buys", ANNA)
REPEAT = Event(b"anna buys again", ANNA)
BAD = Event(b"nonsense", None, "json")
ORDER = ("order-1", ANNA)
CONFIRMED_ROW = AuditRow(ANNA, "CONFIRMED", "order-1")
LETTER = DeadLetter(BAD.body, "json")


def account(
    *published: Event,
    unknown: tuple[Event, ...] = (),
    orders: tuple[tuple[str, Key], ...] = (),
    audit: tuple[AuditRow, ...] = (),
    letters: tuple[DeadLetter, ...] = (),
    queued: tuple[bytes, ...] = (),
) -> Verdict:
    found = Found(orders=orders, audit=audit, dead_letters=letters, queued=queued)
    return judge(History(list(published), list(unknown)), found)


def test_a_round_without_loss_has_no_problems() -> None:
    verdict = account(GOOD, REPEAT, BAD, orders=(ORDER,), audit=(CONFIRMED_ROW,), letters=(LETTER,))
    assert verdict.problems() == []
    assert (verdict.confirmed, verdict.orders, verdict.duplicates, verdict.dead_letters) == (
        3,
        1,
        1,
        1,
    )


@pytest.mark.parametrize("event", [GOOD, BAD])
def test_a_confirmed_event_that_is_nowhere_is_lost(event: Event) -> None:
    verdict = account(event)
    assert verdict.lost == {event}
    assert verdict.problems() == ["1 lost"]


@pytest.mark.parametrize("event", [GOOD, BAD])
def test_a_confirmed_event_that_is_still_queued_is_not_lost(event: Event) -> None:
    verdict = account(event, queued=(event.body,))
    assert verdict.problems() == []
    assert verdict.queued == 1


def test_an_event_is_not_saved_by_the_queued_copy_of_another() -> None:
    assert account(GOOD, BAD, queued=(BAD.body,)).lost == {GOOD}


@pytest.mark.parametrize("event", [GOOD, BAD])
def test_an_unconfirmed_event_may_be_missing(event: Event) -> None:
    assert account(unknown=(event,)).problems() == []


def test_an_unconfirmed_event_may_have_arrived() -> None:
    verdict = account(
        unknown=(GOOD, BAD), orders=(ORDER,), audit=(CONFIRMED_ROW,), letters=(LETTER,)
    )
    assert verdict.problems() == []


def test_an_order_that_nobody_published_is_unexpected() -> None:
    row = AuditRow(BERT, "CONFIRMED", "order-2")
    verdict = account(GOOD, orders=(ORDER, ("order-2", BERT)), audit=(CONFIRMED_ROW, row))
    assert verdict.unexpected == {BERT}
    assert verdict.problems() == ["1 unexpected orders"]


def test_a_second_order_of_a_key_is_found() -> None:
    verdict = account(GOOD, orders=(ORDER, ("order-2", ANNA)), audit=(CONFIRMED_ROW,))
    assert verdict.double_orders == {ANNA}


@pytest.mark.parametrize(
    "letter",
    [
        DeadLetter(GOOD.body, "json"),
        DeadLetter(BAD.body, "text"),
        DeadLetter(b"never published", "json"),
    ],
    ids=["of a good event", "for another reason", "of nothing"],
)
def test_a_wrong_dead_letter_is_found(letter: DeadLetter) -> None:
    verdict = account(GOOD, BAD, orders=(ORDER,), audit=(CONFIRMED_ROW,), letters=(LETTER, letter))
    assert verdict.wrong_letters == [letter]
    assert verdict.problems() == ["1 wrong dead letters"]


def test_a_good_event_among_the_dead_letters_only_is_lost() -> None:
    assert account(GOOD, letters=(DeadLetter(GOOD.body, "poison"),)).lost == {GOOD}


def test_a_double_dead_letter_is_counted_and_is_no_problem() -> None:
    verdict = account(BAD, letters=(LETTER, LETTER))
    assert verdict.problems() == []
    assert verdict.double_letters == 1


def test_an_order_without_its_audit_row_is_found() -> None:
    verdict = account(GOOD, orders=(ORDER,))
    assert verdict.audit_missing == {ANNA}
    assert verdict.problems() == ["1 orders without CONFIRMED row"]


def test_two_audit_rows_of_an_order_are_found() -> None:
    verdict = account(GOOD, orders=(ORDER,), audit=(CONFIRMED_ROW, CONFIRMED_ROW))
    assert verdict.audit_double == {ANNA}
    assert verdict.problems() == ["1 orders with two CONFIRMED rows"]


@pytest.mark.parametrize(
    "row",
    [
        AuditRow(BERT, "CONFIRMED", "order-2"),
        AuditRow(BERT, "FAILED_DB", None),
        AuditRow(ANNA, "ADMIN_RESET", None),
    ],
    ids=["of no order", "of nothing published", "of a type the worker does not write"],
)
def test_a_wrong_audit_row_is_found(row: AuditRow) -> None:
    verdict = account(GOOD, orders=(ORDER,), audit=(CONFIRMED_ROW, row))
    assert verdict.audit_wrong == [row]


def test_an_audit_row_that_names_another_order_is_found() -> None:
    row = CONFIRMED_ROW._replace(order_id="order-2")
    assert account(GOOD, orders=(ORDER,), audit=(row,)).audit_wrong == [row]


def test_a_failed_first_attempt_is_counted_and_is_no_problem() -> None:
    failed = AuditRow(ANNA, "FAILED_DB", None)
    verdict = account(GOOD, orders=(ORDER,), audit=(CONFIRMED_ROW, failed))
    assert verdict.problems() == []
    assert verdict.failed_db == 1
