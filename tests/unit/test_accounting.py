"""The account of a demonstration: what it takes to be right, and what each loss looks like."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from flashsale.accounting import Found, Line, Published, Roll, account, call_roll

PUBLISHED = Published(orders=90, duplicates=6, dead_letters=Counter({"json": 3, "text": 1}))
ALL_WELL = Found(orders=90, audit_rows=90, dead_letters=Counter({"json": 3, "text": 1}), settled=96)


def lines(**doctored: Any) -> dict[str, Line]:
    return {line.name: line for line in account(PUBLISHED, replace(ALL_WELL, **doctored))}


def wrong(**doctored: Any) -> dict[str, int]:
    """The lines that are neither right nor open, and how far they are off."""
    return {
        name: line.found - line.expected
        for name, line in lines(**doctored).items()
        if not (line.is_right or line.is_open)
    }


def test_every_line_is_right_where_every_event_became_what_it_had_to() -> None:
    found = lines()

    assert all(line.is_right for line in found.values())
    assert found["duplicates"] == Line("duplicates", 6, 6)
    assert found["dead_letters.json"] == Line("dead_letters.json", 3, 3)
    assert found["unaccounted_for"] == Line("unaccounted_for", 0, 0)


@pytest.mark.parametrize(
    ("doctored", "expected"),
    [
        # A lost order is missed as such, and does not pass for a duplicate.
        ({"orders": 89}, {"orders": -1, "unaccounted_for": 1}),
        ({"audit_rows": 89}, {"audit_rows": -1}),
        # Both traces lost: no line can tell it from a duplicate, but two do not agree.
        ({"orders": 89, "audit_rows": 89}, {"orders": -1, "audit_rows": -1, "duplicates": 1}),
        # The consumer forgot an event that left no trace.
        ({"settled": 95}, {"duplicates": -1, "unaccounted_for": 1}),
        ({"stray_audit_rows": 1}, {"stray_audit_rows": 1, "duplicates": -1, "unaccounted_for": 1}),
        # An order too many, whoever wrote it.
        ({"stray_orders": 1}, {"stray_orders": 1, "duplicates": -1}),
        # A good event among the dead letters, and therefore without its order.
        (
            {"orders": 89, "audit_rows": 89, "settled": 95, "stray_dead_letters": 1},
            {"orders": -1, "audit_rows": -1, "stray_dead_letters": 1},
        ),
        # Lost, told twice, and of a reason that nothing was made for.
        (
            {"dead_letters": Counter(json=2, text=1)},
            {"dead_letters.json": -1, "unaccounted_for": 1},
        ),
        (
            {"stray_dead_letters": 1},
            {"stray_dead_letters": 1, "unaccounted_for": -1},
        ),
        (
            {"dead_letters": Counter(json=3, poison=1)},
            {"dead_letters.text": -1, "dead_letters.poison": 1},
        ),
    ],
)
def test_whatever_is_lost_or_too_many_makes_its_line_wrong(
    doctored: dict[str, Any], expected: dict[str, int]
) -> None:
    assert wrong(**doctored) == expected


def test_lines_that_are_short_of_queued_events_are_open_and_not_wrong() -> None:
    """After an interruption; no line but the queue's own may then be right by accident."""
    doctored = {"orders": 80, "audit_rows": 80, "settled": 84, "still_queued": 12}
    found = lines(**doctored)

    assert wrong(**doctored) == {}
    assert {name for name, line in found.items() if line.is_open} == {
        "orders",
        "audit_rows",
        "duplicates",
        "still_queued",
    }
    assert found["unaccounted_for"].is_right


def test_more_missing_than_is_queued_is_wrong() -> None:
    assert wrong(orders=80, audit_rows=90, settled=94, still_queued=2) == {
        "orders": -10,
        "unaccounted_for": 10,
    }


def test_a_number_is_ticked_once_and_only_where_it_is_on_the_roll() -> None:
    roll = Roll(2)

    assert [roll.tick(number) for number in (0, 1, 1, 2, -1)] == [True, True, False, False, False]


def test_a_roll_call_tells_the_expected_from_the_strays() -> None:
    assert call_roll(iter([2, 0, 0, 7, -1]), 3) == (2, 3)
