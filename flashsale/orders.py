"""Turns purchases into orders: one statement for all of them, one outcome for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from flashsale.database import array_literal, session
from flashsale.errors import EventFault, SystemFault, TransientFault, UnclassifiedFault
from flashsale.ids import new_order_ids
from flashsale.purchases import Purchase, Reason

_FOREIGN_KEY_VIOLATION = "23503"

# Locking the rows in one order everywhere keeps two workers from deadlocking. The join turns an
# unknown sale from an error that fails all into a row that is not returned.
_INSERT_POSTGRES = """
INSERT INTO orders (id, sale_id, user_id)
SELECT event.id, event.sale_id, event.user_id
FROM unnest(%s::uuid[], %s::uuid[], %s::text[]) AS event (id, sale_id, user_id)
JOIN sales ON sales.id = event.sale_id
ORDER BY event.sale_id, event.user_id COLLATE "C"
ON CONFLICT (sale_id, user_id) DO NOTHING
RETURNING id::text
"""
_INSERT_SQLITE = """
INSERT INTO orders (id, sale_id, user_id)
SELECT json_extract(event.value, '$[0]'), sales.id, json_extract(event.value, '$[2]')
FROM json_each(?) AS event
JOIN sales ON sales.id = json_extract(event.value, '$[1]')
WHERE true
ON CONFLICT (sale_id, user_id) DO NOTHING
RETURNING id
"""
# For the purchases that were not inserted: by position, whether the order is there, and the sale.
# One snapshot for both, or a sale that begins in between would make a purchase pass for a repeat.
_WHY_NOT_POSTGRES = """
SELECT event.position, orders.id IS NOT NULL, sales.id IS NOT NULL
FROM unnest(%s::int[], %s::uuid[], %s::text[]) AS event (position, sale_id, user_id)
LEFT JOIN orders ON orders.sale_id = event.sale_id AND orders.user_id = event.user_id
LEFT JOIN sales ON sales.id = event.sale_id
"""
_WHY_NOT_SQLITE = """
SELECT json_extract(event.value, '$[0]'), orders.id IS NOT NULL, sales.id IS NOT NULL
FROM json_each(?) AS event
LEFT JOIN orders ON orders.sale_id = json_extract(event.value, '$[1]')
                AND orders.user_id = json_extract(event.value, '$[2]')
LEFT JOIN sales ON sales.id = json_extract(event.value, '$[1]')
"""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The purchase became this order, now and here."""

    order_id: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The buyer has an order in this sale already: a success, with nothing left to do."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The purchase can never become an order."""

    reason: Reason
    sqlstate: str | None = None


Outcome = Confirmed | Duplicate | Refused

_DUPLICATE = Duplicate()
_UNKNOWN_SALE = Refused(Reason.UNKNOWN_SALE)


class OrderBook:
    """Writes orders. Thread-safe: each call uses a connection of its own."""

    def __init__(self, database: peewee.Database) -> None:
        self._database = database
        self._on_postgres = not isinstance(database, peewee.SqliteDatabase)

    def confirm(self, purchases: Sequence[Purchase], outcomes: list[Outcome | None]) -> None:
        """Write an order for each purchase that has none yet; committed when this returns.

        The outcome of ``purchases[i]`` is written to ``outcomes[i]`` as soon as it is durable, so
        that an exception half way leaves the caller with what was reached: a purchase that is at
        fault is isolated by halving, while the others commit. Repeating a purchase is harmless.
        Without purchases it only shows whether the tables could be written.

        Raises:
            TransientFault, SystemFault: where ``outcomes`` has None, nothing is known yet.
            UnclassifiedFault: the same, and each of those purchases failed alone.
        """
        with session(self._database):
            unclassified = self._confirm(purchases, range(len(purchases)), outcomes)
        if unclassified is not None:
            raise unclassified

    def _confirm(
        self, purchases: Sequence[Purchase], indexes: Sequence[int], outcomes: list[Outcome | None]
    ) -> UnclassifiedFault | None:
        try:
            with session(self._database):
                self._insert(purchases, indexes, outcomes)
        except (EventFault, UnclassifiedFault) as fault:
            indexes = [index for index in indexes if outcomes[index] is None]
            if not indexes:  # a probe: it is not an event's fault
                raise SystemFault(
                    "the tables refuse even no rows", sqlstate=fault.sqlstate
                ) from None
            if len(indexes) > 1:
                middle = len(indexes) // 2
                first = self._confirm(purchases, indexes[:middle], outcomes)
                return self._confirm(purchases, indexes[middle:], outcomes) or first
            if isinstance(fault, UnclassifiedFault):
                return fault
            # The join found the sale, and it was deleted before the row was in.
            gone = fault.sqlstate == _FOREIGN_KEY_VIOLATION
            reason = Reason.UNKNOWN_SALE if gone else Reason.CONSTRAINT
            outcomes[indexes[0]] = Refused(reason, fault.sqlstate)
        return None

    def _insert(
        self, purchases: Sequence[Purchase], indexes: Sequence[int], outcomes: list[Outcome | None]
    ) -> None:
        order_ids = new_order_ids(len(indexes))
        sale_ids = [purchases[index].sale_id for index in indexes]
        user_ids = [purchases[index].user_id for index in indexes]
        if self._on_postgres:
            rows = self._query(
                _INSERT_POSTGRES, *map(array_literal, (order_ids, sale_ids, user_ids))
            )
        else:
            events = json.dumps(list(zip(order_ids, sale_ids, user_ids, strict=True)))
            rows = self._query(_INSERT_SQLITE, events)
        inserted = {order_id for (order_id,) in rows}

        missing = []
        for index, order_id in zip(indexes, order_ids, strict=True):
            if order_id in inserted:
                outcomes[index] = Confirmed(order_id)
            else:
                missing.append(index)
        if not missing:
            return
        # The orders are committed and have their outcomes: this may fail without hiding them.
        for index, has_order, has_sale in self._why_not(purchases, missing):
            if has_order:
                outcomes[index] = _DUPLICATE
            elif not has_sale:
                outcomes[index] = _UNKNOWN_SALE
            else:
                raise TransientFault("a sale or an order changed while it was written")

    def _why_not(self, purchases: Sequence[Purchase], missing: list[int]) -> list[tuple[Any, ...]]:
        sale_ids = [purchases[index].sale_id for index in missing]
        user_ids = [purchases[index].user_id for index in missing]
        if self._on_postgres:
            positions = [str(index) for index in missing]
            return self._query(
                _WHY_NOT_POSTGRES, *map(array_literal, (positions, sale_ids, user_ids))
            )
        events = json.dumps(list(zip(missing, sale_ids, user_ids, strict=True)))
        return self._query(_WHY_NOT_SQLITE, events)

    def _query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._database.execute_sql(sql, parameters).fetchall()
        except (ValueError, TypeError) as error:
            # The driver could not send a value. The text would quote it.
            raise UnclassifiedFault(
                f"the driver refused a value ({type(error).__name__})"
            ) from None
        return rows
