"""A table with the orders of sales gone by, as the worker would have left it."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.scenarios.load import USER_SQL
from tests.support.shop import Shop

ORDERS_PER_SALE = 100_000
#: Shoppers come back: as many people have written all the orders.
SHOPPERS = 1_000_000

# Ids are those of the worker: a UUIDv7 that begins with the order's time, and for the audit row
# a UUIDv8 that begins so, too. One order a millisecond, until yesterday.
# The foreign keys, which hold by construction, are not checked row by row.
_FILL = f"""
SET session_replication_role = replica;
WITH sale AS (
    INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)
    VALUES (gen_random_uuid(), 'Past sale', {ORDERS_PER_SALE}, now(), now(), now()) RETURNING id
), numbers AS (
    SELECT number, number %% {SHOPPERS} AS n,
           date_trunc('day', now()) - interval '1 day' + number * interval '1 ms' AS at
    FROM generate_series(%s::bigint, %s) AS number
), past AS (
    SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS time,
           md5(number::text) AS digest, {USER_SQL} AS user_id, at, sale.id AS sale_id
    FROM numbers, sale
), written AS (
    INSERT INTO orders (id, sale_id, user_id, created_at)
    SELECT (time || '7' || substr(digest, 1, 3) || '8' || substr(digest, 4, 15))::uuid,
           sale_id, user_id, at
    FROM past
    RETURNING id, sale_id, user_id, created_at
)
INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata, created_at)
SELECT overlay(id::text PLACING '8' FROM 15 FOR 1)::uuid, sale_id, user_id, 'CONFIRMED',
       jsonb_build_object('orderId', id, 'processedAt', created_at), created_at
FROM written
"""


def fill(shop: Shop, orders: int, advance: Callable[[int], None]) -> None:
    """Make the tables, and write so many orders with their audit rows, sale after sale.

    The indexes are in place meanwhile, so that they are as full as those of a table in use.
    `advance` is told the number written.
    """
    shop.make_tables()
    for first in range(0, orders, ORDERS_PER_SALE):
        last = min(first + ORDERS_PER_SALE, orders) - 1
        shop.query(_FILL, first, last)
        advance(last + 1)
    shop.query("VACUUM ANALYZE")
