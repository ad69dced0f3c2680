"""Lets one event be the end of the worker process that inserts it, in the way that it names."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from flashsale.orders import OrderBook
from flashsale.purchases import Purchase

#: Stands in the user id of the event that kills, alone or with a way of :data:`WAYS` behind it.
MARK = "poison"

_ROOM_BYTES = 256 << 20
_PIECE_BYTES = 16 << 20

_insert = OrderBook._insert


def _be_killed() -> None:
    """As the kernel does for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    ctypes.string_at(0)


def _stand_still() -> None:
    threading.Event().wait()


def _use_up_memory() -> None:
    """Up to a limit, where Python raises MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    pieces = []
    try:
        while True:
            pieces.append(bytearray(_PIECE_BYTES))
    finally:
        pieces.clear()
        resource.setrlimit(resource.RLIMIT_AS, limits)


WAYS = {"": _be_killed, "-crash": _crash, "-stuck": _stand_still, "-memory": _use_up_memory}


def _insert_or_die(
    book: OrderBook, order_ids: Sequence[str], purchases: Sequence[Purchase]
) -> set[str]:
    for purchase in purchases:
        _, mark, way = purchase.user_id.partition(MARK)
        if mark:
            WAYS.get(way, _be_killed)()
    return _insert(book, order_ids, purchases)


OrderBook._insert = _insert_or_die  # type: ignore[method-assign]
