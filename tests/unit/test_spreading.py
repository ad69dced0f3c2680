"""Which queue an event goes to: the same for all who publish, and alike for all queues."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from flashsale.spreading import queue_for

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


def event(user: str, **more: str) -> bytes:
    return json.dumps({"saleId": SALE, "userId": user, **more}).encode()


@pytest.mark.parametrize(
    ("user", "crc"),
    # As zlib.crc32 of Node.js and of others gives it: an API may spread by itself.
    [("123456789", 0xCBF43926), ("a", 0xE8B7BE43)],
)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shoppers_checksum_decides(user: str, crc: int, count: int) -> None:
    queues = [f"purchase-{number}" for number in range(count)]
    assert queue_for(event(user), queues) == queues[crc % count]


def test_all_events_of_a_shopper_go_to_one_queue() -> None:
    queues = ["a", "b", "c"]
    wrapped = b'{"pattern": "purchase", "data": %b}' % event("ada")
    assert queue_for(event("ada", timestamp="x"), queues) == queue_for(wrapped, queues)


@pytest.mark.parametrize("count", [2, 3, 4, 16])
def test_shoppers_who_are_numbered_fill_all_queues_alike(count: int) -> None:
    queues = [f"purchase-{number}" for number in range(count)]
    filled = Counter(queue_for(event(f"user-{number}"), queues) for number in range(8_000))
    assert min(filled.values()) > 0.85 * 8_000 / count
    assert max(filled.values()) < 1.15 * 8_000 / count


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]"])
def test_what_is_no_event_goes_to_one_of_them_too(body: bytes) -> None:
    assert queue_for(body, ["a", "b"]) in ("a", "b")
