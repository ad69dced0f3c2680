"""What the database tells of the orders, by a few rows of its indexes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flashsale.database import PostgresDatabase, close_database, open_database, session
from flashsale.errors import SystemFault
from flashsale.urls import DatabaseAddress
from flashsale.verification import CONFIRMED_ROWS, GRACE

#: Orders per second are counted over so many seconds.
WINDOW_SECONDS = 5
#: So many orders are searched for missing audit rows, the newest.
ORDERS = 2_000
_ANSWER_SECONDS = 5.0

_RATE = "SELECT count(*) FROM orders WHERE created_at > {moment}"
_LAST = "SELECT max(created_at) FROM orders"
# The newest only: `flashsale verify` searches them all, which takes its time. Counted row by row:
# a NOT EXISTS lets PostgreSQL read the whole audit trail instead.
_UNAUDITED = f"""
SELECT count(*) FROM (
  SELECT sale_id, user_id FROM orders WHERE created_at <= {{moment}}
  ORDER BY created_at DESC LIMIT {ORDERS}) AS orders
WHERE (SELECT count(*) {CONFIRMED_ROWS}) = 0
"""


@dataclass(frozen=True)
class DatabaseStatus:
    """The orders, by the database's clock."""

    orders_per_second: float
    #: None where there is no order.
    last_order_age_seconds: float | None
    #: Of the newest :data:`ORDERS` orders older than GRACE, those without their audit row.
    unaudited: int


class DatabaseWatch:
    """Asks the database, on one connection as long as it lasts. For one thread at a time."""

    def __init__(self, address: DatabaseAddress) -> None:
        self._address = address
        self._database = open_database(address, statement_timeout_seconds=_ANSWER_SECONDS)

    def look(self) -> DatabaseStatus:
        """Ask now, for five seconds at most.

        Raises:
            StoreError: the database does not answer, or tables are missing.
        """
        if isinstance(self._database, PostgresDatabase):
            self._database.hurry_in(_ANSWER_SECONDS)
        elif not Path(self._address.name).exists():  # to connect would make the file
            raise SystemFault(f"there is no file {self._address.name}: run `flashsale migrate`")
        with session(self._database):
            now = self._now()
            recent = self._one(_RATE, now - timedelta(seconds=WINDOW_SECONDS))
            last = self._one(_LAST)
            unaudited = self._one(_UNAUDITED, now - GRACE)
        if isinstance(last, str):  # SQLite
            last = datetime.fromisoformat(last)
        age = None if last is None else max(0.0, (now - last).total_seconds())
        return DatabaseStatus(recent / WINDOW_SECONDS, age, unaudited)

    def close(self) -> None:
        close_database(self._database)

    def _now(self) -> datetime:
        if not self._address.is_postgres:
            return datetime.now(UTC)
        now: datetime = self._one("SELECT now()")
        return now

    def _one(self, sql: str, moment: datetime | None = None) -> Any:
        values: list[datetime | str] = []
        if moment is not None:
            values.append(moment if self._address.is_postgres else moment.isoformat(" "))
        statement = sql.format(moment=self._database.param)
        return self._database.execute_sql(statement, values).fetchone()[0]
