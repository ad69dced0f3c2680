"""Which events the NestJS worker takes and this one does not, and the other way round.

What the stand-in is held to here is what Prisma Client 6.19 answered when it was asked.
"""

from __future__ import annotations

from contextlib import closing, suppress

import pytest

from flashsale.errors import EventRefused
from flashsale.purchases import Purchase
from tests.support.api import API_MIGRATION
from tests.support.events import LIMIT, SALE, body, raw
from tests.support.old_worker import Database, process
from tests.support.shop import Shop

BOTH = {
    "common": body(),
    "upper case": body(saleId=SALE.upper()),
    "an unknown key": body(extra=1),
}
OLD_ONLY = {
    "empty": (body(userId=""), "text"),
    "blank": (body(userId=" "), "text"),
    "a tab": (body(userId="a\tb"), "text"),
    "braces": (body(saleId=f"{{{SALE}}}"), "format"),
    "no hyphens": (body(saleId=SALE.replace("-", "")), "format"),
    "a key twice": (raw(rest=',"userId":"another"'), "duplicate_key"),
    "more than 64 KiB": (body(note="x" * LIMIT), "too_large"),
    "not UTF-8": (body().replace(b"shopper", b"sh\xffpper"), "encoding"),
}
NEW_ONLY = {"a wrapper": b'{"pattern":"purchase","data":' + body() + b"}"}
NEITHER = {
    "NUL": body(userId="a\0"),
    "256 characters": body(userId="a" * 256),
    "a number": body(userId=7),
    "null": body(userId=None),
    "a list": body(userId=["a"]),
    "half a pair": raw(user_id=r'"a\ud800"'),
    "a nickname": body(saleId="sale_1"),
    "a URN": body(saleId=f"urn:uuid:{SALE}"),
    "NaN": b'{"saleId":NaN,"userId":"a"}',
}


@pytest.fixture
def shop(empty_postgres_url: str) -> Shop:
    shop = Shop(empty_postgres_url, "", "", "")
    shop.query(API_MIGRATION)
    shop.sale_id = SALE
    shop.open_sale()
    return shop


def test_the_old_worker_takes_and_refuses_what_the_page_says(shop: Shop) -> None:
    taken = []
    old_only = {name: event for name, (event, _) in OLD_ONLY.items()}
    events = {**BOTH, **old_only, **NEW_ONLY, **NEITHER}
    with closing(Database(shop.database_url)) as database:
        for name, event in events.items():
            database.execute("DELETE FROM order_audit_trail; DELETE FROM orders")
            with suppress(Exception):  # it takes any failure for one of the event
                process(database, event)
            if shop.order_count() == len(shop.confirmations()) == 1:
                taken.append(name)

    assert taken == [*BOTH, *OLD_ONLY]


def test_this_worker_takes_and_refuses_what_the_page_says() -> None:
    taken = [name for name, event in {**BOTH, **NEW_ONLY}.items() if refusal(event) is None]
    refused = {name: refusal(event) for name, (event, _) in OLD_ONLY.items()}

    assert taken == [*BOTH, *NEW_ONLY]
    assert refused == {name: reason for name, (_, reason) in OLD_ONLY.items()}
    assert all(refusal(event) for event in NEITHER.values())


def refusal(event: bytes) -> str | None:
    try:
        Purchase.parse(event, max_bytes=LIMIT)
    except EventRefused as refused:
        return str(refused.reason)
    return None
