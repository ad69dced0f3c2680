"""Which of several purchase queues an event goes to.

Any of them would do: what makes one order of an event and its repeats is the index in the database,
whichever queue they come from. By shopper, the queues fill alike though all want the same sale, and
a shopper's repeats meet in one batch as a rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from flashsale.errors import EventRefused
from flashsale.purchases import Purchase


def queue_for(body: bytes, queues: Sequence[str]) -> str:
    """The queue for this event: the CRC-32 of its ``userId``, in UTF-8, modulo their number.

    Of a body that is no event, the whole counts. The same body always goes to the same queue.
    """
    if len(queues) == 1:
        return queues[0]
    try:
        key = Purchase.parse(body, max_bytes=len(body)).user_id.encode()
    except EventRefused:
        key = body
    return queues[zlib.crc32(key) % len(queues)]
