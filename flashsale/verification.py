"""Whether the tables say what they must: each kind of wrong that they could hold, searched for.

All is read in one snapshot, so a worker may go on meanwhile. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import peewee

from flashsale.database import session
from flashsale.errors import FlashsaleError
from flashsale.models import ORDER_CONFIRMED, AuditEventType

#: Orders younger than this may still have their audit row in a worker's memory.
GRACE = timedelta(seconds=10)
_EXAMPLES = 5


class UnknownSale(FlashsaleError):
    """There is no such sale; the text names the next step."""


@dataclass(frozen=True)
class Check:
    """One kind of violation. `rows` selects an id, as text, for each case of it.

    In `rows`, {sale} stands for the restriction to one sale, {cutoff} for the moment before which
    orders must have their audit row.
    """

    name: str
    meaning: str
    remedy: str
    rows: str
    #: Asked of PostgreSQL's catalogue, which SQLite has no match for.
    is_of_schema: bool = False


@dataclass(frozen=True)
class Finding:
    """What a check found; without cases, nothing is wrong."""

    check: Check
    cases: int
    #: Ids of the first few: of orders, audit rows or sales, as the check's meaning says.
    examples: Sequence[str] = ()


@dataclass(frozen=True)
class Stock:
    """A sale's orders against what it had to sell."""

    sale_id: str
    name: str
    sold: int
    total_stock: int


@dataclass(frozen=True)
class Verification:
    """The findings of one snapshot, every check among them."""

    findings: Sequence[Finding]
    stocks: Sequence[Stock]
    orders: int
    confirmed_rows: int
    #: Young orders without an audit row, which is not wrong yet.
    pending: int

    @property
    def violations(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.cases]


#: The CONFIRMED rows of a row called orders.
CONFIRMED_ROWS = """FROM order_audit_trail AS audit
    WHERE audit.sale_id = orders.sale_id AND audit.user_id = orders.user_id
      AND audit.event_type = 'CONFIRMED'"""
_AUDITED = f"EXISTS (SELECT 1 {CONFIRMED_ROWS})"

CHECKS = (
    Check(
        "duplicate_buyers",
        "orders of a shopper who has an earlier one in the same sale",
        "decide which order stands, delete the others, then make (sale_id, user_id) unique again",
        """SELECT CAST(id AS text) FROM (
             SELECT id, row_number() OVER (PARTITION BY sale_id, user_id ORDER BY created_at, id)
                    AS place FROM orders WHERE {sale}) AS placed
           WHERE place > 1""",
    ),
    Check(
        "oversold",
        "sales with more orders than stock",
        "the API reserves the stock: compare its reservations with the orders of the sale",
        """SELECT CAST(sales.id AS text) FROM sales
           JOIN (SELECT sale_id, count(*) AS sold FROM orders WHERE {sale} GROUP BY sale_id)
             AS counted ON counted.sale_id = sales.id
           WHERE counted.sold > sales.total_stock""",
    ),
    Check(
        "orders_of_no_sale",
        "orders whose sale does not exist",
        "restore the sale's row, then the foreign key from orders to sales",
        """SELECT CAST(id AS text) FROM orders
           WHERE {sale} AND NOT EXISTS (SELECT 1 FROM sales WHERE sales.id = orders.sale_id)""",
    ),
    Check(
        "unexpected_status",
        f"orders whose status is not {ORDER_CONFIRMED}",
        "no worker writes such a row: find out who did",
        f"SELECT CAST(id AS text) FROM orders WHERE {{sale}} AND status <> '{ORDER_CONFIRMED}'",
    ),
    Check(
        "orders_without_audit",
        "orders without a CONFIRMED audit row",
        "run `flashsale audit reconcile`; running workers do the same every minute",
        f"""SELECT CAST(id AS text) FROM orders
            WHERE {{sale}} AND created_at <= {{cutoff}} AND NOT {_AUDITED}""",
    ),
    Check(
        "repeated_audit",
        "CONFIRMED audit rows of an order that has an earlier one",
        "keep the row whose id the order's own worker would give it (the oldest), delete the rest",
        """SELECT CAST(id AS text) FROM (
             SELECT id, row_number() OVER (PARTITION BY sale_id, user_id ORDER BY created_at, id)
                    AS place FROM order_audit_trail
             WHERE {sale} AND event_type = 'CONFIRMED') AS placed
           WHERE place > 1""",
    ),
    Check(
        "audit_without_order",
        "CONFIRMED audit rows of a shopper who has no order in that sale",
        "an order was deleted, or written elsewhere: restore it from the audit row, or explain it",
        """SELECT CAST(audit.id AS text) FROM order_audit_trail AS audit
           WHERE {sale} AND event_type = 'CONFIRMED' AND NOT EXISTS (
             SELECT 1 FROM orders
             WHERE orders.sale_id = audit.sale_id AND orders.user_id = audit.user_id)""",
    ),
    Check(
        "audit_of_another_order",
        "CONFIRMED audit rows whose orderId is not that of the shopper's order",
        "compare the row with the order: one of them was changed or copied by hand",
        """SELECT CAST(audit.id AS text) FROM order_audit_trail AS audit
           WHERE {sale} AND event_type = 'CONFIRMED'
             AND EXISTS (
               SELECT 1 FROM orders
               WHERE orders.sale_id = audit.sale_id AND orders.user_id = audit.user_id)
             AND NOT EXISTS (
               SELECT 1 FROM orders
               WHERE orders.sale_id = audit.sale_id AND orders.user_id = audit.user_id
                 AND CAST(orders.id AS text) = metadata->>'orderId')""",
    ),
    Check(
        "no_unique_index",
        "tables without a valid unique index on (sale_id, user_id)",
        "remove the duplicate buyers first, then: CREATE UNIQUE INDEX ON orders (sale_id, user_id)",
        """SELECT 'orders' WHERE NOT EXISTS (
             SELECT 1 FROM pg_index AS i
             WHERE i.indrelid = to_regclass('orders') AND i.indisunique AND i.indisvalid
               AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 2
               AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute AS a
                    WHERE a.attrelid = i.indrelid
                      AND a.attnum = ANY ((i.indkey::int2[])[0:1]))
                   = ARRAY['sale_id', 'user_id'])""",
        is_of_schema=True,
    ),
    Check(
        "no_foreign_key",
        "tables without a validated foreign key to sales",
        "add it again, or VALIDATE it: ALTER TABLE … FOREIGN KEY (sale_id) REFERENCES sales (id)",
        """SELECT name FROM unnest(ARRAY['orders', 'order_audit_trail']) AS name
           WHERE NOT EXISTS (
             SELECT 1 FROM pg_constraint AS c
             WHERE c.contype = 'f' AND c.conrelid = to_regclass(name) AND c.convalidated
               AND c.confrelid = to_regclass('sales'))""",
        is_of_schema=True,
    ),
)

# On PostgreSQL; within a transaction of SQLite all is of one moment as it is.
_LARGE_READING = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    # With the usual 4 MB, each sort of a million rows would go to the server's disk.
    "SET LOCAL work_mem = '128MB'",
    # Right after a sale the planner knows nothing of its rows, and would compare all with all.
    "SET LOCAL enable_nestloop = off",
)

_ORDERS_UNAUDITED = f"SELECT count(*) FROM orders WHERE {{sale}} AND NOT {_AUDITED} AND created_at"
_PENDING = _ORDERS_UNAUDITED + " > {cutoff}"
_UNAUDITED = _ORDERS_UNAUDITED + " <= {cutoff}"
_KNOWN = """
SELECT (SELECT count(*) FROM sales WHERE {sale_row}) + (SELECT count(*) FROM orders WHERE {sale})
"""
_STOCKS = """
SELECT CAST(sales.id AS text), sales.name, coalesce(counted.sold, 0), sales.total_stock
FROM sales LEFT JOIN (SELECT sale_id, count(*) AS sold FROM orders WHERE {sale} GROUP BY sale_id)
  AS counted ON counted.sale_id = sales.id
WHERE {sale_row} ORDER BY sales.starts_at, sales.id
"""


def verify(
    database: peewee.Database,
    sale_id: str | None = None,
    *,
    grace: timedelta = GRACE,
    advance: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Check all sales, or the one with this id, in one snapshot; write nothing.

    `advance` is called with the number of checks done, of ``len(CHECKS)``. Memory does not depend
    on the number of orders.

    Raises:
        UnknownSale: neither a sale nor an order has this id.
        StoreError: the database is away, a table is missing, or a statement took too long.
    """
    with one_snapshot(database):
        return verify_in_snapshot(database, sale_id, grace=grace, advance=advance)


def verify_in_snapshot(
    database: peewee.Database,
    sale_id: str | None = None,
    *,
    grace: timedelta = GRACE,
    advance: Callable[[int], None] = lambda _: None,
) -> Verification:
    """As :func:`verify`, within :func:`one_snapshot`, beside what else is read there."""
    snapshot = _Snapshot(database, sale_id, grace)
    if sale_id is not None and not snapshot.count(_KNOWN):
        raise UnknownSale(
            f"nothing here knows a sale {sale_id}: `flashsale verify --json` lists the sales"
        )
    findings = []
    for done, check in enumerate(CHECKS, start=1):
        findings.append(snapshot.find(check))
        advance(done)
    return Verification(
        findings=findings,
        stocks=[Stock(*row) for row in snapshot.rows(_STOCKS)],
        orders=snapshot.count("SELECT count(*) FROM orders WHERE {sale}"),
        confirmed_rows=snapshot.count(
            "SELECT count(*) FROM order_audit_trail WHERE {sale} AND event_type = "
            f"'{AuditEventType.CONFIRMED}'"
        ),
        pending=snapshot.count(_PENDING),
    )


@contextmanager
def one_snapshot(database: peewee.Database) -> Iterator[None]:
    """A session in which all that is read is of one moment, for large readings.

    Raises:
        StoreError: the database is away, a table is missing, or a statement took too long.
    """
    with session(database), database.atomic():
        if not isinstance(database, peewee.SqliteDatabase):
            for statement in _LARGE_READING:
                database.execute_sql(statement)
        yield


def count_unaudited(database: peewee.Database, grace: timedelta) -> int:
    """How many orders older than `grace` lack their CONFIRMED row; raises StoreError."""
    with one_snapshot(database):
        return _Snapshot(database, None, grace).count(_UNAUDITED)


class _Snapshot:
    """Asks within :func:`one_snapshot`."""

    def __init__(self, database: peewee.Database, sale_id: str | None, grace: timedelta) -> None:
        self._database = database
        self._on_postgres = not isinstance(database, peewee.SqliteDatabase)
        cutoff: datetime | str
        if self._on_postgres:
            ((now,),) = database.execute_sql("SELECT now()").fetchall()  # the clock of the orders
            cutoff = now - grace
        else:
            cutoff = (datetime.now(UTC) - grace).isoformat(" ")
        self._values = {"sale": sale_id, "cutoff": cutoff}
        sale, moment = ("%(sale)s", "%(cutoff)s") if self._on_postgres else (":sale", ":cutoff")
        self._restrictions = {
            "sale": f"sale_id = {sale}" if sale_id else "true",
            "sale_row": f"sales.id = {sale}" if sale_id else "true",
            "cutoff": moment,
        }

    def find(self, check: Check) -> Finding:
        if check.is_of_schema and not self._on_postgres:
            return Finding(check, 0)
        found = self.rows(
            f"WITH found (id) AS ({check.rows})"
            f" SELECT id, (SELECT count(*) FROM found) FROM found ORDER BY id LIMIT {_EXAMPLES}"
        )
        return Finding(check, found[0][1] if found else 0, [example for example, _ in found])

    def count(self, sql: str) -> int:
        ((count,),) = self.rows(sql)
        return int(count)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        statement = sql.format(**self._restrictions)
        rows: list[tuple[Any, ...]] = self._database.execute_sql(statement, self._values).fetchall()
        return rows
