"""Turns purchases into orders: one statement for all of them, one outcome for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from flashsale.database import session
from flashsale.errors import EventFault, UnclassifiedFault
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
_KNOWN_SALES_POSTGRES = "SELECT id::text FROM sales WHERE id = ANY(%s::uuid[])"
_KNOWN_SALES_SQLITE = "SELECT id FROM sales WHERE id IN (SELECT value FROM json_each(?))"


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
            rows = self._query(_INSERT_POSTGRES, order_ids, sale_ids, user_ids)
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
        known_sales = self._known_sales({purchases[index].sale_id for index in missing})
        for index in missing:
            known = purchases[index].sale_id in known_sales
            outcomes[index] = _DUPLICATE if known else _UNKNOWN_SALE

    def _known_sales(self, sale_ids: Iterable[str]) -> set[str]:
        wanted = sorted(sale_ids)
        if self._on_postgres:
            rows = self._query(_KNOWN_SALES_POSTGRES, wanted)
        else:
            rows = self._query(_KNOWN_SALES_SQLITE, json.dumps(wanted))
        return {sale_id for (sale_id,) in rows}

    def _query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._database.execute_sql(sql, parameters).fetchall()
        except (ValueError, TypeError) as error:
            # The driver could not send a value. The text would quote it.
            raise UnclassifiedFault(
                f"the driver refused a value ({type(error).__name__})"
            ) from None
        return rows
