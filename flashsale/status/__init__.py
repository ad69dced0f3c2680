"""How it goes now: the queues, the orders and the workers, each asked where it is known.

A source that is away is told in its place, and hides no other. No purchase is ever taken to look
at it: RabbitMQ shows a message only to those who take it, and the age of those that wait follows
from the one that a worker took last.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from flashsale.errors import BrokerError, StoreError
from flashsale.reports import oldest_at_most
from flashsale.settings import Settings
from flashsale.status.broker import BrokerStatus, BrokerWatch
from flashsale.status.database import DatabaseStatus, DatabaseWatch
from flashsale.status.workers import WorkersStatus, look_at_workers

__all__ = ["Status", "StatusWatch"]

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


@dataclass(frozen=True)
class Status:
    """One moment. Of RabbitMQ and the database there is either what they say or their error."""

    at: datetime
    dead_letter_queue: str
    workers: WorkersStatus
    broker: BrokerStatus | None = None
    broker_error: BrokerError | None = None
    database: DatabaseStatus | None = None
    database_error: StoreError | None = None

    @property
    def oldest_seconds_at_most(self) -> float | None:
        """See :func:`flashsale.reports.oldest_at_most`; of the workers here.

        Of several queues each has an order of its own, and which of them the event that was had
        last came from is not known.
        """
        if self.broker is None or self.broker.missing:
            return None
        last = self.workers.last_event_at if len(self.broker.queues) <= 1 else None
        return oldest_at_most(self.broker.purchases.ready, last, self.at.timestamp())

    def record(self) -> dict[str, Any]:
        """All of it, for JSON; docs/status.md names the fields."""
        return {
            "at": self.at.isoformat(),
            "broker": self._broker_record(),
            "database": asdict(self.database)
            if self.database
            else {"error": str(self.database_error)},
            "workers": {
                "processes": [asdict(process) for process in self.workers.processes],
                "in_flight": self.workers.in_flight,
                "audit_rows": self.workers.audit_rows,
                "lag_seconds": self.workers.lag_seconds,
            },
            "oldest_seconds_at_most": self.oldest_seconds_at_most,
        }

    def _broker_record(self) -> dict[str, Any]:
        if self.broker is None:
            return {"error": str(self.broker_error)}
        reasons = self.broker.reasons
        return {
            "purchases": {
                "queue": ",".join(self.broker.queues),
                **self.broker.purchases._asdict(),
                "queues": {
                    queue: depth and depth._asdict() for queue, depth in self.broker.queues.items()
                },
            },
            "dead_letters": {
                "queue": self.dead_letter_queue,
                **self.broker.dead_letters._asdict(),
                "looked_at": reasons.seen,
                "reasons": dict(reasons.counts),
                "reasons_problem": reasons.problem,
            },
        }


class StatusWatch:
    """Looks at everything, again and again if asked to, with the connections kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._broker = BrokerWatch(settings)
        self._database = DatabaseWatch(settings.database)
        # Side by side, so that one that is silent costs no more than its own time.
        self._threads = ThreadPoolExecutor(2, "status")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        self._broker.close()
        self._database.close()

    def look(self) -> Status:
        """How it is now. Takes as long as the slowest source: five seconds for a silent one."""
        broker = self._threads.submit(_asked, self._broker.look, BrokerError)
        database = self._threads.submit(_asked, self._database.look, StoreError)
        broker_status, broker_error = broker.result()
        database_status, database_error = database.result()
        return Status(
            datetime.now(UTC),
            self._settings.dead_letter_queue,
            look_at_workers(self._settings.state_folder),
            broker_status,
            broker_error,
            database_status,
            database_error,
        )


def _asked(look: Callable[[], T], failure: type[E]) -> tuple[T, None] | tuple[None, E]:
    try:
        return look(), None
    except failure as error:
        return None, error
