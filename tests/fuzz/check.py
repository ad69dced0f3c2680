"""What must hold for any input whatever."""

from __future__ import annotations

import re
from collections.abc import Callable

from flashsale import purchases
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase, Reason
from tests.support import refusals
from tests.support.events import LIMIT

_SALE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Below this neither the decoder nor the reference can run out of stack.
_SAFE_DEPTH = 200


def check(data: bytes) -> str:
    """Read an input in all ways. Returns "purchase", or the reason of the refusal.

    Raises:
        AssertionError: they disagree, or the result is not what it should be.
        Exception: whatever the decoder has let out.
    """
    outcome = _outcome(lambda: Purchase.parse(data))
    if len(data) <= LIMIT:
        assert outcome == _outcome(lambda: purchases._parse_strictly(data, None)), "the strict path"
    if data.count(b"[") + data.count(b"{") <= _SAFE_DEPTH:
        assert outcome == _expected(data), "the reference"
    if not isinstance(outcome, Purchase):
        return outcome
    assert 1 <= len(outcome.user_id) <= 255
    assert not _FORBIDDEN.search(outcome.user_id)
    assert _SALE_ID.fullmatch(outcome.sale_id)
    occurred_at = outcome.occurred_at
    assert occurred_at is None or occurred_at.utcoffset() is not None
    again = outcome.encode()
    assert outcome == Purchase.parse(again, max_bytes=len(again))
    return "purchase"


def _outcome(parse: Callable[[], Purchase]) -> Purchase | Reason:
    try:
        return parse()
    except EventRefused as refusal:
        return Reason(refusal.reason)


def _expected(data: bytes) -> Purchase | Reason:
    try:
        return Purchase(*refusals.read(data, LIMIT))
    except refusals.Refusal as refusal:
        return Reason(str(refusal))
