"""One short round of the faults that happen most. ``python -m tests.torture`` has them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.torture.scenarios  # noqa: F401  # enters all scenarios
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.torture.harness import run_round
from tests.torture.scenario import SCENARIOS, Scenario
from tests.torture.stage import Stage

_SMOKE = ("F1", "F5", "F7", "F9", "F23", "F31")


@pytest.fixture(scope="module")
def stage(postgres_server: PrivatePostgres, rabbitmq_server: PrivateRabbitMQ) -> Iterator[Stage]:
    """Servers of its own: the session's, which others use, may not be tortured.

    That those are asked for all the same marks the test, and skips it where no server is installed.
    """
    with Stage() as stage:
        yield stage


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if scenario.name in _SMOKE],
    ids=lambda scenario: scenario.name,
)
def test_no_event_is_lost(stage: Stage, scenario: Scenario) -> None:
    """Every confirmed event is one order, a duplicate of one, or a dead letter with its reason."""
    report = run_round(stage, scenario, seed=1)
    assert report.problems == [], report.log_tail
    assert report.verdict.orders > 0
