"""Isolation: which rows are written, which are found at fault, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.errors import EventFault, SystemFault, UnclassifiedFault
from flashsale.isolation import isolate

ROWS = 200
PIECES = 4  # of 64 rows, which those after the first named one are tried in


class Table:
    """Refuses the bad rows; names the first that it comes to where that is one of `named`."""

    def __init__(self, bad: set[int], named: set[int]) -> None:
        self.bad = bad
        self.named = named
        self.rows: list[int] = []
        self.calls = 0

    def write(self, rows: Sequence[int]) -> None:
        self.calls += 1
        for row in sorted(rows):
            if row in self.bad:
                raise EventFault("bad", row_id=str(row) if row in self.named else "another")
        self.rows += rows

    def refuse(self, rows: Sequence[int]) -> list[int]:
        return [row for row, _ in isolate(self.write, rows, id_of=str, order=int)]


@given(
    rows=st.permutations(range(ROWS)), bad=st.sets(st.integers(0, ROWS - 1)), named=st.booleans()
)
def test_all_but_the_bad_are_written_once_within_the_bound(
    rows: list[int], bad: set[int], named: bool
) -> None:
    table = Table(bad, bad if named else set())

    refused = table.refuse(rows)

    assert sorted(refused) == sorted(bad)
    assert sorted(table.rows) == sorted(set(rows) - bad)
    each = 2 if named else 2 * math.ceil(math.log2(ROWS))
    assert table.calls <= 1 + each * len(bad) + (PIECES if named and bad else 0)


def test_a_row_that_is_named_is_found_among_some_that_are_not() -> None:
    table = Table({3, 11, 40}, {11})

    assert sorted(table.refuse(range(ROWS))) == [3, 11, 40]


def test_a_name_that_no_row_has_decides_nothing() -> None:
    table = Table({5}, set())

    assert table.refuse([5, 6]) == [5]
    assert table.rows == [6]


def test_a_fault_without_any_row_is_that_of_none() -> None:
    def write(_: Sequence[int]) -> None:
        raise UnclassifiedFault("of the table")

    with pytest.raises(UnclassifiedFault):
        list(isolate(write, [], id_of=str, order=int))


def test_what_is_found_before_the_system_fails_is_known() -> None:
    def write(rows: Sequence[int]) -> None:
        if 1 in rows:
            raise EventFault("bad", row_id="1")
        raise SystemFault("gone")

    faults = isolate(write, [1, 2], id_of=str, order=int)

    row, _ = next(faults)
    assert row == 1
    with pytest.raises(SystemFault):
        next(faults)


@pytest.mark.parametrize("named", [True, False])
def test_a_table_that_refuses_all_is_soon_told_from_rows_that_are_at_fault(named: bool) -> None:
    everything = set(range(ROWS))
    table = Table(bad=everything, named=everything if named else set())
    with pytest.raises(EventFault):
        list(isolate(table.write, range(ROWS), id_of=str, order=int, patience=16))
    assert table.calls <= 2 * 16 + math.ceil(math.log2(ROWS))


def test_patience_does_not_end_once_a_row_was_written() -> None:
    table = Table(bad=set(range(1, ROWS)), named=set())
    faults = isolate(table.write, range(ROWS), id_of=str, order=int, patience=16)
    assert [row for row, _ in faults] == list(range(1, ROWS))
    assert table.rows == [0]
