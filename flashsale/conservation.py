"""What was published against the orders: which events have become none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import peewee

from flashsale.database import session
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase

_EXAMPLES = 20


@dataclass
class Comparison:
    """Published events by what the tables say became of them."""

    published: int = 0
    orders: int = 0
    #: Events of a shopper whose order an earlier event had led to.
    duplicates: int = 0
    #: Events that the worker refuses, by reason: each must be a dead letter.
    refused: Counter[str] = field(default_factory=Counter)
    #: Good events without an order: still queued, dead letters (of an unknown sale), or lost.
    missing: int = 0
    #: The places of the first of them in what was published, counted from 1.
    examples: list[int] = field(default_factory=list)

    def unaccounted_for(self, *, queued: int, dead_letters: int) -> int:
        """How many events are nowhere, with so many messages left in the two queues."""
        return max(0, self.missing + self.refused.total() - queued - dead_letters)


def compare(
    database: peewee.Database, groups: Iterable[Sequence[bytes]], *, max_bytes: int
) -> Comparison:
    """Look up the order of each published event, group by group; write nothing.

    It keeps the id of each order it has seen: about 100 MB for a million.

    Raises:
        StoreError: the database is away, or a table is missing.
    """
    comparison = Comparison()
    seen: set[int] = set()
    for group in groups:
        places = _places(group, comparison, max_bytes)
        with session(database):
            for sale_id, users in places.items():
                found = _orders_of(database, sale_id, list(users))
                for user_id, events in users.items():
                    order_id = found.get(user_id)
                    if order_id is None:
                        comparison.missing += len(events)
                        free = _EXAMPLES - len(comparison.examples)
                        comparison.examples += events[:free]
                    else:
                        new = order_id not in seen
                        seen.add(order_id)
                        comparison.orders += new
                        comparison.duplicates += len(events) - new
    return comparison


def _places(
    group: Sequence[bytes], comparison: Comparison, max_bytes: int
) -> dict[str, dict[str, list[int]]]:
    """The places of the group's good events, by sale and user."""
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for body in group:
        comparison.published += 1
        try:
            purchase = Purchase.parse(body, max_bytes=max_bytes)
        except EventRefused as refusal:
            comparison.refused[refusal.reason] += 1
        else:
            places[purchase.sale_id][purchase.user_id].append(comparison.published)
    return places


def _orders_of(database: peewee.Database, sale_id: str, users: list[str]) -> dict[str, int]:
    place = database.param
    rows = database.execute_sql(
        f"SELECT user_id, CAST(id AS text) FROM orders WHERE sale_id = {place}"
        f" AND user_id IN ({', '.join([place] * len(users))})",
        (sale_id, *users),
    ).fetchall()
    return {user_id: UUID(order_id).int for user_id, order_id in rows}
