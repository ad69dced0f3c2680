"""What a status concludes from its sources, and how it is drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    ready: int = 0,
    *,
    last_event_at: float | None = None,
    processes: tuple[ProcessStatus, ...] = (),
    queues: Mapping[str, Depth | None] | None = None,
) -> Status:
    return Status(
        NOW,
        "purchase.XQ",
        WorkersStatus(processes, None, last_event_at),
        BrokerStatus(queues or {"purchase": Depth(ready, 1)}, Depth(0, 0), LetterReasons()),
        None,
        DatabaseStatus(float(ready), None, 0),
        None,
    )


def drawn(status: Status, past: Past | None = None, *, width: int = 160) -> str:
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(view(status, past, width=width))
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


def test_several_queues_are_summed_and_each_is_shown() -> None:
    status = a_status(queues={"a": Depth(1_000, 3), "b": Depth(7, 2)}, last_event_at=1.0)

    assert status.oldest_seconds_at_most is None  # each queue has an order of its own
    assert status.record()["broker"]["purchases"] == {
        "queue": "a,b",
        "ready": 1_007,
        "consumers": 2,
        "queues": {"a": {"ready": 1_000, "consumers": 3}, "b": {"ready": 7, "consumers": 2}},
    }
    shown = drawn(status)
    assert re.search(r"purchases +1,007 .*in 2 queues, 2 consumers each at least", shown)
    assert re.search(r"^ +a +1,000 .*3 consumers", shown, re.MULTILINE)
    assert re.search(r"^ +b +7 .*2 consumers", shown, re.MULTILINE)


def test_of_several_queues_one_that_is_missing_has_no_consumer_and_hides_no_other() -> None:
    status = a_status(queues={"a": Depth(5, 3), "b": None})

    purchases = status.record()["broker"]["purchases"]
    assert (purchases["ready"], purchases["consumers"]) == (5, 0)
    assert purchases["queues"]["b"] is None
    assert re.search(r"^ +b +\? .*does not exist", drawn(status), re.MULTILINE)


def test_a_sparkline_rises_to_its_greatest_number_and_has_gaps() -> None:
    past = Past()
    for ready in (0, 50):
        past.add(a_status(ready))
    past.add(
        Status(
            NOW,
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


@pytest.mark.parametrize(("width", "looks"), [(160, 40), (80, 16), (72, 8), (71, 0), (50, 0)])
def test_on_a_narrow_terminal_the_past_makes_room_for_the_present(width: int, looks: int) -> None:
    past = Past()
    for ready in range(50):
        past.add(a_status(ready))

    shown = drawn(a_status(49), past, width=width)

    first, *_ = (line for line in shown.splitlines() if line.startswith("purchases"))
    assert sum(first.count(bar) for bar in "▁▂▃▄▅▆▇█") == looks
    assert "dead letters" in shown
    assert len(shown.splitlines()) <= 20


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
