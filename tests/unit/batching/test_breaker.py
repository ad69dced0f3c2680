"""When work is offered, suspended, probed for and resumed, and how little of it is logged."""

from __future__ import annotations

import logging
import math

import pytest

from flashsale.batching import Breaker, BreakerState
from flashsale.batching.breaker import backoff_seconds
from tests.simulation.clock import Clock

HOLD_SECONDS = 3.0
PROBE_MAX_SECONDS = 1.0
FLAPPING_MAX_SECONDS = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock, caplog: pytest.LogCaptureFixture) -> Breaker:
    caplog.set_level(logging.INFO, "flashsale.batching.breaker")
    return Breaker(
        clock=clock,
        hold_seconds=HOLD_SECONDS,
        probe_max_seconds=PROBE_MAX_SECONDS,
        flapping_max_seconds=FLAPPING_MAX_SECONDS,
    )


def probe(breaker: Breaker, failed_because: str | None = None) -> None:
    breaker.start_probe()
    breaker.end_probe(failed_because=failed_because)


def close(breaker: Breaker) -> None:
    probe(breaker)
    breaker.succeed()


def test_it_starts_open_with_a_probe_due_at_once(breaker: Breaker, clock: Clock) -> None:
    """Nothing is taken from the queue before the system behind the actor was seen to work."""
    assert breaker.state is BreakerState.OPEN
    assert breaker.hold_is_over
    assert breaker.next_probe_at == clock()


def test_the_time_of_all_outages_is_counted_and_no_other(breaker: Breaker, clock: Clock) -> None:
    """A worker without purchases may be in its trial for hours, and nothing is wrong."""
    clock.advance(2)
    assert breaker.open_seconds == 2
    probe(breaker)
    clock.advance(3_600)
    breaker.succeed()
    clock.advance(3_600)

    breaker.trip("away")
    clock.advance(1)
    breaker.trip("away")
    clock.advance(4)
    assert breaker.open_seconds == 7
    probe(breaker)
    clock.advance(1)
    breaker.trip("away")
    clock.advance(3)
    assert breaker.open_seconds == 10


def test_one_probe_is_on_its_way_at_a_time(breaker: Breaker) -> None:
    breaker.start_probe()

    assert breaker.next_probe_at == math.inf


def test_a_successful_probe_leads_to_the_trial_and_one_batch_ends_it(breaker: Breaker) -> None:
    probe(breaker)
    assert breaker.state is BreakerState.TRIAL

    breaker.succeed()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.next_probe_at == math.inf


def test_a_batch_that_ends_well_while_it_is_open_proves_nothing(breaker: Breaker) -> None:
    """It may have been under way since before the outage."""
    breaker.succeed()

    assert breaker.state is BreakerState.OPEN


def test_a_system_failure_opens_it_and_holds_before_giving_back(
    breaker: Breaker, clock: Clock
) -> None:
    close(breaker)
    breaker.trip("the disk is full")

    assert breaker.state is BreakerState.OPEN
    assert not breaker.hold_is_over
    clock.advance(HOLD_SECONDS)
    assert breaker.hold_is_over


def test_an_outage_that_goes_on_is_not_held_for_again(breaker: Breaker, clock: Clock) -> None:
    """What comes in a trial that fails goes back at once: the hold counts from the beginning."""
    close(breaker)
    breaker.trip("the disk is full")
    clock.advance(HOLD_SECONDS)
    probe(breaker)
    breaker.trip("the disk is full")

    assert breaker.hold_is_over


def test_the_next_outage_has_a_hold_of_its_own(breaker: Breaker, clock: Clock) -> None:
    close(breaker)
    breaker.trip("the disk is full")
    clock.advance(HOLD_SECONDS)
    close(breaker)
    breaker.trip("the disk is full")

    assert not breaker.hold_is_over


def test_probes_back_off_and_are_never_further_apart_than_said(
    breaker: Breaker, clock: Clock
) -> None:
    pauses = []
    for _ in range(20):
        probe(breaker, "no route")
        pauses.append(breaker.next_probe_at - clock())
        clock.advance(pauses[-1])

    assert 0.1 <= pauses[0] <= 0.2
    assert max(pauses) <= PROBE_MAX_SECONDS
    assert min(pauses[5:]) >= PROBE_MAX_SECONDS / 2


def test_a_system_that_answers_probes_and_fails_batches_is_asked_ever_less(
    breaker: Breaker, clock: Clock
) -> None:
    """A full disk: probes succeed, writes do not, and this must not become a busy loop."""
    close(breaker)
    pauses = []
    for _ in range(20):
        breaker.trip("the disk is full")
        pauses.append(breaker.next_probe_at - clock())
        clock.advance(pauses[-1])
        probe(breaker)

    assert pauses[0] <= 0.2
    assert min(pauses[10:]) >= FLAPPING_MAX_SECONDS / 2
    assert max(pauses) <= FLAPPING_MAX_SECONDS


def test_after_a_success_the_pauses_start_over(breaker: Breaker, clock: Clock) -> None:
    close(breaker)
    for _ in range(10):
        breaker.trip("the disk is full")
        probe(breaker)
    breaker.succeed()
    breaker.trip("the disk is full")

    assert breaker.next_probe_at - clock() <= 0.2


def test_late_failures_of_the_same_outage_change_nothing(breaker: Breaker, clock: Clock) -> None:
    """Several batches under way fail of one cause: the hold does not start over with each."""
    close(breaker)
    breaker.trip("no route")
    due = breaker.next_probe_at
    clock.advance(HOLD_SECONDS)
    breaker.trip("no route")

    assert breaker.hold_is_over
    assert breaker.next_probe_at == due


def test_an_outage_of_any_length_takes_few_log_lines(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One when it begins, one a minute, one when it ends; not one for each attempt."""
    close(breaker)
    breaker.trip("no route")
    while clock() < 1_000.0 + 150.0:
        probe(breaker, "no route")
        clock.advance(0.5)
    close(breaker)

    assert [record.message for record in caplog.records] == [
        "work.suspended",
        "work.waiting",
        "work.waiting",
        "work.resumed",
    ]
    assert caplog.records[0].cause == "no route"
    assert caplog.records[-1].suspended_seconds == 150.0


def test_a_start_without_trouble_logs_nothing(
    breaker: Breaker, caplog: pytest.LogCaptureFixture
) -> None:
    close(breaker)

    assert not caplog.records


def test_a_start_before_the_system_is_up_says_what_it_waits_for(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    probe(breaker, "no such database")
    probe(breaker, "no such database")
    clock.advance(2.34)
    close(breaker)

    assert [record.message for record in caplog.records] == ["work.waiting", "work.resumed"]
    assert caplog.records[0].cause == "no such database"
    assert caplog.records[1].suspended_seconds == 2.3


def test_each_outage_is_told_from_its_beginning(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for cause in ("no route", "the disk is full"):
        close(breaker)
        clock.advance(1.0)
        breaker.trip(cause)
        clock.advance(60.0)
        probe(breaker, cause)

    told = [(record.message, vars(record).get("cause")) for record in caplog.records]
    assert told == [
        ("work.suspended", "no route"),
        ("work.waiting", "no route"),
        ("work.resumed", None),
        ("work.suspended", "the disk is full"),
        ("work.waiting", "the disk is full"),
    ]


def test_the_pauses_between_probes_double(breaker: Breaker, clock: Clock) -> None:
    for longest in (0.2, 0.4, 0.8):
        probe(breaker, "no route")
        assert longest / 2 <= breaker.next_probe_at - clock() <= longest


def test_after_an_outage_the_pauses_between_probes_start_over(
    breaker: Breaker, clock: Clock
) -> None:
    for _ in range(10):
        probe(breaker, "no route")
    close(breaker)
    breaker.trip("no route")
    probe(breaker, "no route")

    assert breaker.next_probe_at - clock() <= 0.2


@pytest.mark.parametrize("attempt", [0, 1, 5, 50, 10_000])
def test_backoff_grows_with_jitter_up_to_its_limit(attempt: int) -> None:
    pauses = [backoff_seconds(attempt, 0.1, 10.0) for _ in range(50)]

    lowest = min(0.1 * 2.0 ** min(attempt, 10), 5.0)
    assert all(lowest <= pause <= 10.0 for pause in pauses)
    assert len(set(pauses)) > 1
