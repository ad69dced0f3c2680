"""What lasts is told at once, then once a minute; and again at once where it has ended between."""

from __future__ import annotations

import pytest

from flashsale.batching.reminders import Reminders
from tests.simulation.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reminders(clock: Clock) -> Reminders:
    return Reminders(clock)


def test_a_topic_is_due_at_first_and_then_once_a_minute(reminders: Reminders, clock: Clock) -> None:
    assert reminders.is_due("away")
    clock.advance(59.9)
    assert not reminders.is_due("away")
    assert reminders.is_due("another")
    clock.advance(0.1)
    assert reminders.is_due("away")


def test_what_is_forgotten_is_due_at_once_and_the_others_are_not(reminders: Reminders) -> None:
    for topic in ("away", "another"):
        reminders.is_due(topic)
    reminders.forget("away")
    reminders.forget("unheard of")

    assert reminders.is_due("away")
    assert not reminders.is_due("another")


def test_all_is_forgotten_at_once(reminders: Reminders) -> None:
    for topic in ("away", "another"):
        reminders.is_due(topic)
    reminders.forget_all()

    assert reminders.is_due("away")
    assert reminders.is_due("another")
