"""Finds the rows that the database refuses, so that no other row suffers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from flashsale.errors import EventFault, UnclassifiedFault

T = TypeVar("T")

# Where one row is at fault more may be, and each has all that is sent with it sent again.
_PIECE = 64

RowFault = EventFault | UnclassifiedFault
"""The faults that may be those of single rows."""


def isolate(
    write: Callable[[Sequence[T]], object],
    rows: Sequence[T],
    *,
    id_of: Callable[[T], str],
    order: Callable[[T], Any],
    patience: int | None = None,
) -> Iterator[tuple[T, RowFault]]:
    """Write all rows but those that are at fault; yields these with their faults, once found.

    One call of `write` takes any number of rows, all or none of them, and is the only one where
    none is at fault. A fault that names its row costs two more calls, any other 2·log2(rows), by
    halving down to the row that fails alone.

    Args:
        id_of: The id by which a fault's ``row_id`` knows the row.
        order: The key in whose order `write` has the server take the rows; those before the one
            that it names were good, and are not tried together with it again.
        patience: After so many rows at fault, with none written before or between them, it is
            taken for the table's fault and raised, instead of searching on row by row.

    Raises:
        TransientFault, SystemFault: from `write`; what it wrote before remains written.
        EventFault, UnclassifiedFault: there are no rows, so it is the fault of none; or `patience`
            has ended.
    """
    parts = [rows]
    at_fault = 0
    while parts:
        part = parts.pop()
        try:
            write(part)
            patience = None
        except (EventFault, UnclassifiedFault) as fault:
            if not part:
                raise
            ordered = sorted(part, key=order)
            at = _named(fault, [id_of(row) for row in ordered])
            if at is None and len(ordered) > 1:
                middle = len(ordered) // 2
                parts += [ordered[middle:], ordered[:middle]]
                continue
            at = at or 0
            at_fault += 1
            if patience is not None and at_fault >= patience:
                raise
            yield ordered[at], fault
            after = range(at + 1, len(ordered), _PIECE)
            parts += [ordered[start : start + _PIECE] for start in reversed(after)]
            if at:
                parts.append(ordered[:at])


def _named(fault: RowFault, ids: list[str]) -> int | None:
    row_id = fault.row_id if isinstance(fault, EventFault) else None
    return ids.index(row_id) if row_id in ids else None
