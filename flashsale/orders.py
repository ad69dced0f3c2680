"""Turns purchases into orders: one statement for all of them, one outcome for each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import peewee

from flashsale.database import session
from flashsale.errors import EventFault, SystemFault, TransientFault, UnclassifiedFault
from flashsale.ids import new_order_ids
from flashsale.isolation import isolate
from flashsale.purchases import Purchase, Reason
from flashsale.statements import REPLICATED, execute, lines

_FOREIGN_KEY_VIOLATION = "23503"
_UNIQUE_VIOLATION = "23505"
# From so many purchases on, an insert that takes them all for new saves more than its plan costs.
_MANY = 64
# After a repeat more are expected for so long, and no statement is failed by one meanwhile.
_REPEATS_SECONDS = 60.0

# Locking the rows in one order everywhere keeps two workers from deadlocking. The join turns an
# unknown sale from an error that fails all into a row that is not returned.
_ROWS_POSTGRES = """
INSERT INTO orders (id, sale_id, user_id)
SELECT event.id, event.sale_id, event.user_id
FROM unnest(string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n')::uuid[],
            string_to_array(%s, E'\\n')) AS event (id, sale_id, user_id)
JOIN sales ON sales.id = event.sale_id
ORDER BY event.sale_id, event.user_id COLLATE "C"
"""
_INSERT_POSTGRES = f"""{_ROWS_POSTGRES}
ON CONFLICT (sale_id, user_id) DO NOTHING
RETURNING id::text
"""
# For ON CONFLICT the server looks for each order first, and inserts it on trial, which is a sixth
# of what the statement costs it. Without, an order that is there already fails them all, and stands
# in the server's log as an error. What comes before the insert inserts nothing; it fails where
# (sale_id, user_id) is not unique.
_INSERT_NEW_POSTGRES = f"""
WITH only_where_unique AS (
    INSERT INTO orders (id, sale_id, user_id) SELECT NULL::uuid, NULL::uuid, NULL WHERE false
    ON CONFLICT (sale_id, user_id) DO NOTHING
)
{_ROWS_POSTGRES}
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
# An order that another wrote is a reason to acknowledge only once it is replicated.
_WHY_NOT_POSTGRES = f"""
SELECT event.position, orders.id IS NOT NULL, sales.id IS NOT NULL, {REPLICATED}
FROM unnest(string_to_array(%s, E'\\n')::int[], string_to_array(%s, E'\\n')::uuid[],
            string_to_array(%s, E'\\n')) AS event (position, sale_id, user_id)
LEFT JOIN orders ON orders.sale_id = event.sale_id AND orders.user_id = event.user_id
LEFT JOIN sales ON sales.id = event.sale_id
"""
_WHY_NOT_SQLITE = """
SELECT json_extract(event.value, '$[0]'), orders.id IS NOT NULL, sales.id IS NOT NULL, NULL
FROM json_each(?) AS event
LEFT JOIN orders ON orders.sale_id = json_extract(event.value, '$[1]')
                AND orders.user_id = json_extract(event.value, '$[2]')
LEFT JOIN sales ON sales.id = json_extract(event.value, '$[1]')
"""
# Nothing of ours waits for a commit longer than for a statement, so one that waits for a standby
# for longer has been given up; to begin another would only take one more of the connections.
_GIVEN_UP_COMMITS = """
SELECT EXISTS (
  SELECT FROM pg_stat_activity
  WHERE usename = current_user AND wait_event = 'SyncRep'
    AND query_start < clock_timestamp() - current_setting('statement_timeout')::interval)
"""


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """The purchase became this order, now and here."""

    order_id: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The buyer has an order in this sale already: a success, with nothing left to do."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The purchase can never become an order; `explanation` says which rule it broke, if one."""

    reason: Reason
    sqlstate: str | None = None
    # Words for people, which make no other outcome.
    explanation: str | None = field(default=None, compare=False)


Outcome = Confirmed | Duplicate | Refused

_DUPLICATE = Duplicate()
_UNKNOWN_SALE = Refused(Reason.UNKNOWN_SALE)


class OrderBook:
    """Writes orders. Thread-safe: each call uses a connection of its own."""

    def __init__(
        self, database: peewee.Database, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._on_postgres = not isinstance(database, peewee.SqliteDatabase)
        self._clock = clock
        # Of all threads; which of two writes it last does not matter.
        self._repeats_until = -math.inf

    def confirm(self, purchases: Sequence[Purchase], outcomes: list[Outcome | None]) -> None:
        """Write an order for each purchase that has none yet; committed when this returns.

        The outcome of ``purchases[i]`` is written to ``outcomes[i]`` as soon as it is durable, so
        that an exception half way leaves the caller with what was reached: a purchase that is at
        fault is isolated, while the others commit. Repeating a purchase is harmless.
        Without purchases it only shows whether the tables could be written.

        Raises:
            TransientFault, SystemFault: where ``outcomes`` has None, nothing is known yet.
            UnclassifiedFault: the same, and each of those purchases failed alone.
        """
        missing: list[int] = []
        with session(self._database):
            try:
                unclassified = self._write(purchases, outcomes, missing)
            except (EventFault, UnclassifiedFault) as fault:
                # A probe: there is no event that it could be the fault of.
                raise SystemFault(
                    "the tables refuse even no rows", sqlstate=fault.sqlstate
                ) from None
            # The orders are committed and have their outcomes: this may fail without hiding them.
            if missing:
                self._explain(purchases, missing, outcomes)
            if not purchases and self._on_postgres:
                self._require_replication()
        if unclassified is not None:
            raise unclassified

    def _write(
        self, purchases: Sequence[Purchase], outcomes: list[Outcome | None], missing: list[int]
    ) -> UnclassifiedFault | None:
        """Write orders. Adds to `missing` where none was written and no fault tells why."""
        order_ids = new_order_ids(len(purchases))

        def insert(indexes: Sequence[int]) -> None:
            inserted = self._insert(
                [order_ids[index] for index in indexes], [purchases[index] for index in indexes]
            )
            for index in indexes:
                if order_ids[index] in inserted:
                    outcomes[index] = Confirmed(order_ids[index])
                else:
                    missing.append(index)

        unclassified: UnclassifiedFault | None = None
        for index, fault in isolate(
            insert,
            range(len(purchases)),
            id_of=order_ids.__getitem__,
            order=lambda index: (purchases[index].sale_id, purchases[index].user_id),
        ):
            if isinstance(fault, UnclassifiedFault):
                unclassified = fault
            else:
                outcomes[index] = _refused(fault)
        return unclassified

    def _insert(self, order_ids: Sequence[str], purchases: Sequence[Purchase]) -> set[str]:
        """Write orders, all or none. Returns the ids of those that were not there."""
        sale_ids = [purchase.sale_id for purchase in purchases]
        user_ids = [purchase.user_id for purchase in purchases]
        if self._on_postgres:
            rows = self._insert_lines(len(purchases), *map(lines, (order_ids, sale_ids, user_ids)))
        else:
            events = json.dumps(list(zip(order_ids, sale_ids, user_ids, strict=True)))
            rows = self._query(_INSERT_SQLITE, events)
        return {order_id for (order_id,) in rows}

    def _insert_lines(self, count: int, *columns: str) -> list[tuple[Any, ...]]:
        """Write so many orders, given by columns, and return the ids of those that are new."""
        if count >= _MANY and self._clock() >= self._repeats_until:
            try:
                return self._query(_INSERT_NEW_POSTGRES, *columns)
            except UnclassifiedFault as fault:
                if fault.sqlstate != _UNIQUE_VIOLATION:
                    raise
                self._expect_repeats()
        rows = self._query(_INSERT_POSTGRES, *columns)
        if len(rows) < count:  # or unknown sales, which are rarer still
            self._expect_repeats()
        return rows

    def _expect_repeats(self) -> None:
        self._repeats_until = self._clock() + _REPEATS_SECONDS

    def _explain(
        self, purchases: Sequence[Purchase], missing: list[int], outcomes: list[Outcome | None]
    ) -> None:
        """Find the outcomes of the purchases that were not inserted."""
        for index, has_order, has_sale, _ in self._why_not(purchases, missing):
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
            columns = map(lines, (positions, sale_ids, user_ids))
            return self._query(_WHY_NOT_POSTGRES, *columns)
        events = json.dumps(list(zip(missing, sale_ids, user_ids, strict=True)))
        return self._query(_WHY_NOT_SQLITE, events)

    def _require_replication(self) -> None:
        ((given_up,),) = self._query(_GIVEN_UP_COMMITS)
        if given_up:
            raise SystemFault(
                "commits wait for a synchronous standby: start it, or take it out of"
                " synchronous_standby_names"
            )

    def _query(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        with session(self._database):
            rows: list[tuple[Any, ...]] = execute(self._database, sql, parameters).fetchall()
        return rows


def _refused(fault: EventFault) -> Refused:
    # The join found the sale, and it was deleted before the row was in.
    gone = fault.sqlstate == _FOREIGN_KEY_VIOLATION
    reason = Reason.UNKNOWN_SALE if gone else Reason.CONSTRAINT
    return Refused(reason, fault.sqlstate, str(fault))
