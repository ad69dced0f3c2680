"""What a status concludes from its sources, and how it is drawn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.console import Console

from flashsale.brokers.topology import Depth
from flashsale.cli.status_view import Past, duration, view
from flashsale.errors import BrokerUnavailable, SystemFault
from flashsale.status import Status
from flashsale.status.broker import BrokerStatus, LetterReasons
from flashsale.status.database import DatabaseStatus
from flashsale.status.workers import ProcessStatus, WorkersStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_status(
    ready: int = 0, *, last_event_at: float | None = None, processes: tuple[ProcessStatus, ...] = ()
) -> Status:
    return Status(
        NOW,
        "purchase",
        "purchase.XQ",
        WorkersStatus(processes, None, last_event_at),
        BrokerStatus(Depth(ready, 1), Depth(0, 0), LetterReasons()),
        None,
        DatabaseStatus(float(ready), None, 0),
        None,
    )


def drawn(status: Status, past: Past | None = None, *, plain: bool = False) -> str:
    console = Console(width=160, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(view(status, past, plain=plain))
    return capture.get()


@pytest.mark.parametrize(
    ("ready", "last_event_at", "oldest"),
    [(0, None, 0.0), (5, None, None), (5, NOW.timestamp() - 7, 7.0), (5, NOW.timestamp() + 7, 0.0)],
    ids=["nothing waits", "nothing is known", "newer than the last", "clocks differ"],
)
def test_purchases_that_wait_are_no_older_than_the_one_taken_last(
    ready: int, last_event_at: float | None, oldest: float | None
) -> None:
    assert a_status(ready, last_event_at=last_event_at).oldest_seconds_at_most == oldest


def test_a_sparkline_rises_to_its_greatest_number_and_has_gaps() -> None:
    past = Past()
    for ready in (0, 50):
        past.add(a_status(ready))
    past.add(
        Status(
            NOW,
            "purchase",
            "purchase.XQ",
            WorkersStatus((), None, None),
            broker_error=BrokerUnavailable("gone"),
            database_error=SystemFault("gone"),
        )
    )
    past.add(a_status(100))

    assert past.sparkline("purchases", plain=False) == "▁▅ █"
    assert past.sparkline("purchases", plain=True) == "_= #"
    assert "▁▅ █" in drawn(a_status(100), past)


def test_a_process_that_does_not_consume_shows_and_why() -> None:
    processes = (
        ProcessStatus(11, "running", True, "closed", 20, 0, None),
        ProcessStatus(12, "running", False, "open", 0, 0, "its consumer stands still"),
    )
    well, ill = drawn(a_status(processes=processes)).splitlines()[-2:]

    assert well.split() == ["11", "running", "yes", "closed", "20"]
    assert ill.split()[-3:] == ["no", "open", "0"]
    assert "its consumer stands still" in ill


def test_times_are_told_in_the_unit_that_people_would_use() -> None:
    told = [duration(seconds) for seconds in (0.04, 59, 600, 7_200, 400_000)]
    assert told == ["0.0 s", "59.0 s", "10 min", "2 h", "5 d"]
