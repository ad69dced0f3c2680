"""Ids of orders and audit rows, made by the worker.

Order ids are UUIDv7, so that the rows of one moment lie together in the primary key's index. The
id of an audit row follows from the order's id and the event's type: whoever writes the row, and
however often, it is the same row.
"""

from __future__ import annotations

import hashlib
import os
import time
from functools import lru_cache


def new_order_ids(count: int) -> list[str]:
    """`count` new UUIDv7 in their 36-character form (RFC 9562, section 5.7)."""
    now = f"{time.time_ns() // 1_000_000:012x}"
    lead = f"{now[:8]}-{now[8:]}-7"
    # One call for all: it costs as much as for one.
    random = os.urandom(10 * count).hex()
    return [
        f"{lead}{random[at : at + 3]}-{_VARIANT[random[at + 3]]}{random[at + 4 : at + 7]}"
        f"-{random[at + 7 : at + 19]}"
        for at in range(0, 20 * count, 20)
    ]


def audit_id(order_id: str, event_type: str) -> str:
    """The id of the audit row of this type for this order: a UUIDv8 that keeps the order's time.

    It is the order's own id, but for its version and the 12 bits behind it, which tell the type; of
    the others, 62 are as random as they were. A digest of both, as in a UUIDv5, would cost several
    times as much, and scatter the rows over the whole index.
    """
    return f"{order_id[:14]}{_version_and_type(event_type)}{order_id[18:]}"


def audit_id_without_order(sale_id: str, user_id: str, event_type: str) -> str:
    """The id of the audit row of this type for a purchase that has no order (yet): a UUIDv8."""
    digest = _digest(f"{sale_id}|{user_id}|{event_type}")
    return (
        f"{digest[20:28]}-{digest[28:32]}-8{digest[:3]}"
        f"-{_VARIANT[digest[3]]}{digest[4:7]}-{digest[7:19]}"
    )


@lru_cache(maxsize=64)
def _version_and_type(event_type: str) -> str:
    return f"8{_digest(event_type)[:3]}"


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


# The two highest bits of the fourth group are fixed to 10 (RFC 9562, section 4.1).
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
