"""One short round of the faults that happen most. ``python -m tests.torture`` has them all."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import tests.torture.canaries
import tests.torture.closing
import tests.torture.scenarios  # enters all scenarios
from tests.support.processes import ServerNotInstalled
from tests.support.waiting import wait_until
from tests.torture.__main__ import say
from tests.torture.canaries import CANARIES
from tests.torture.harness import Round, run_round
from tests.torture.scenario import SCENARIOS, Scenario
from tests.torture.scenarios.interventions import insert_trigger
from tests.torture.stage import Stage

pytestmark = [pytest.mark.acceptance, pytest.mark.postgres, pytest.mark.rabbitmq]

_SMOKE = ("F1", "F5", "F7", "F9", "F23", "F31")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Servers of its own: the session's, which others use, may not be tortured."""
    try:
        stage = Stage()
    except ServerNotInstalled as missing:
        if os.environ.get("CI") == "true":
            raise  # a mistake of the set-up, for which no test may vanish
        pytest.skip(str(missing))
    with stage:
        yield stage


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if scenario.name in _SMOKE],
    ids=lambda scenario: scenario.name,
)
def test_no_event_is_lost(
    stage: Stage, scenario: Scenario, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every confirmed event is one order, a duplicate of one, or a dead letter with its reason.

    And nothing that is printed of it, here or there, holds a password or a part of an event.
    """
    report = run_round(stage, scenario, seed=1)
    say(report, verbose=True)
    shown = "".join(capfd.readouterr()) + report.log_tail
    assert report.problems == [], report.log_tail
    assert report.verdict.orders > 0
    assert f"ok     {scenario.name}" in shown
    assert [canary for canary in CANARIES if canary in shown] == []


def test_a_canary_that_is_seen_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that could find nothing would prove nothing."""
    monkeypatch.setattr(tests.torture.canaries, "CANARIES", ("flashsale.actors", "missing"))
    report = run_round(stage, Scenario("F0", "nothing happens", lambda round_: round_.start()), 1)
    assert any("canary 0" in told and "cmdline" in told for told in report.problems)
    assert not any("canary 1" in told for told in report.problems)


def test_a_worker_that_acknowledges_too_early_is_caught(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torture that could not find a loss would prove nothing."""

    def kill_while_it_writes(round_: Round) -> None:
        round_.start_workers(masters=1, modules=["reckless"])
        with insert_trigger(round_, "PERFORM pg_sleep(1)"):
            round_.load.publish([round_.events.good() for _ in range(50)])
            wait_until(lambda: round_.ready() == 0, 5, "the worker has all events")
            round_.workers.kill(round_.workers.worker_pids())
            round_.stage.disconnect_workers()  # or PostgreSQL would finish what the dead has begun

    monkeypatch.setattr(tests.torture.closing, "STANDSTILL_SECONDS", 1.0)
    report = run_round(
        stage, Scenario("F0", "acknowledges too early", kill_while_it_writes), seed=1
    )
    assert report.verdict.lost
    assert f"{len(report.verdict.lost)} lost" in report.problems
