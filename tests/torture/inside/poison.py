"""Ends the worker process, as the kernel does for lack of memory, when it inserts one event."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from flashsale.orders import OrderBook
from flashsale.purchases import Purchase

#: Stands in the user id of the event that kills.
MARK = "poison"

_insert = OrderBook._insert


def _insert_or_die(
    book: OrderBook, purchases: Sequence[Purchase], indexes: Sequence[int], outcomes: Any
) -> None:
    if any(MARK in purchases[index].user_id for index in indexes):
        os.kill(os.getpid(), signal.SIGKILL)
    _insert(book, purchases, indexes, outcomes)


OrderBook._insert = _insert_or_die  # type: ignore[method-assign,assignment]
