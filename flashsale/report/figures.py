"""What the tables tell about a sale, aggregated by PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import peewee

from flashsale.verification import UnknownSale

# Charts of no more points than this, whether the sale took a minute or ten days. Of shorter ones
# there are fewer: within less than half a second, single batches would show and no pace.
_BUCKETS = 150
_BUCKET_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 21_600, 86_400)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class SaleFacts:
    """The sale's own row."""

    id: str
    name: str
    total_stock: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Bucket:
    """The orders of a short time. Lags are in seconds, None where no order of it has one."""

    begins_at: datetime
    orders: int
    lag_median: float | None
    lag_p99: float | None


@dataclass(frozen=True)
class Lag:
    """How long events took from `since` to their order, in seconds; of `orders` it is known."""

    orders: int
    median: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Figures:
    """All that the page shows of the tables."""

    sale: SaleFacts
    orders: int
    first_at: datetime | None
    last_at: datetime | None
    #: When the last item of the stock was sold, if so many were.
    sold_out_at: datetime | None
    #: How long each bucket is, and all of them from the first order to the last, empty ones too.
    bucket: timedelta
    buckets: Sequence[Bucket]
    busiest_second: int
    lag: Lag | None
    #: Rows of the audit trail by event type.
    audit_rows: dict[str, int]


_SALE = """
SELECT id::text, name, total_stock, starts_at, ends_at FROM sales WHERE id = %s
"""
_SPAN = """
SELECT count(*), min(created_at), max(created_at) FROM orders WHERE sale_id = %s
"""
_SOLD_OUT = """
SELECT created_at FROM orders WHERE sale_id = %s ORDER BY created_at LIMIT 1 OFFSET %s
"""
# When the API took a purchase is in the metadata of its CONFIRMED row, as RFC 3339.
_LAGS = """
SELECT orders.created_at, extract(epoch FROM
         orders.created_at - (audit.metadata->>'occurredAt')::timestamptz)::float AS lag
FROM orders LEFT JOIN order_audit_trail AS audit
  ON audit.sale_id = orders.sale_id AND audit.user_id = orders.user_id
 AND audit.event_type = 'CONFIRMED'
WHERE orders.sale_id = %s
"""
# How many whole buckets lie before an order; date_bin() would need PostgreSQL 14.
_PLACE = "(extract(epoch FROM created_at - %s) * 1000000)::bigint / %s"
_BY_BUCKET = f"""
SELECT {_PLACE} AS place, count(*),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY lag),
       percentile_cont(0.99) WITHIN GROUP (ORDER BY lag)
FROM ({_LAGS}) AS sold GROUP BY place
"""
_LAG = f"""
SELECT count(lag), percentile_cont(0.5) WITHIN GROUP (ORDER BY lag),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY lag),
       percentile_cont(0.99) WITHIN GROUP (ORDER BY lag), max(lag)
FROM ({_LAGS}) AS sold
"""
_BUSIEST = f"""
SELECT max(orders) FROM (
  SELECT {_PLACE} AS second, count(*) AS orders FROM orders WHERE sale_id = %s
  GROUP BY second) AS seconds
"""
_AUDIT_ROWS = """
SELECT event_type, count(*) FROM order_audit_trail WHERE sale_id = %s
GROUP BY event_type ORDER BY event_type
"""


def figures_of(database: peewee.Database, sale_id: str) -> Figures:
    """The figures of one sale; memory does not depend on the number of orders.

    To be called within :func:`flashsale.verification.one_snapshot`, whose errors it raises.

    Raises:
        UnknownSale: there is no such sale.
    """

    def rows(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = database.execute_sql(sql, values).fetchall()
        return found

    sale = rows(_SALE, sale_id)
    if not sale:
        raise UnknownSale(
            f"there is no sale {sale_id}: `flashsale verify --json` lists those there are"
        )
    facts = SaleFacts(*sale[0])
    ((orders, first_at, last_at),) = rows(_SPAN, sale_id)
    bucket = _bucket(last_at - first_at if orders else timedelta())
    sold_out = orders >= facts.total_stock > 0
    ((known, *lags),) = rows(_LAG, sale_id)
    by_place = rows(_BY_BUCKET, first_at, _microseconds(bucket), sale_id)
    return Figures(
        sale=facts,
        orders=orders,
        first_at=first_at,
        last_at=last_at,
        sold_out_at=rows(_SOLD_OUT, sale_id, facts.total_stock - 1)[0][0] if sold_out else None,
        bucket=bucket,
        buckets=_buckets(by_place, first_at, bucket),
        busiest_second=rows(_BUSIEST, first_at, 1_000_000, sale_id)[0][0] or 0,
        lag=Lag(known, *lags) if known else None,
        audit_rows=dict(rows(_AUDIT_ROWS, sale_id)),
    )


def _bucket(span: timedelta) -> timedelta:
    if span < timedelta(seconds=1):  # a rate of less time than that says nothing
        return timedelta(seconds=1)
    sizes = (timedelta(seconds=seconds) for seconds in _BUCKET_SECONDS)
    fitting = (size for size in sizes if size * _BUCKETS >= span)
    return next(fitting, -(-span // (_DAY * _BUCKETS)) * _DAY)


def _buckets(
    by_place: Sequence[tuple[Any, ...]], first_at: datetime, bucket: timedelta
) -> list[Bucket]:
    """In order, with those between in which nothing was sold."""
    found = {place: numbers for place, *numbers in by_place}
    places = range(max(found, default=-1) + 1)
    return [
        Bucket(first_at + place * bucket, *found.get(place, (0, None, None))) for place in places
    ]


def _microseconds(time: timedelta) -> int:
    return time // timedelta(microseconds=1)
