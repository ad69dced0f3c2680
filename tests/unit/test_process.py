"""What a worker is as a process of the system."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import flashsale.process
from flashsale.process import take_repeated_signals_once


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that arrive at the handler that stands for Dramatiq's."""
    heard: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in numbers]
    yield heard
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_signal_that_comes_twice_at_once_is_one_request(heard: list[int]) -> None:
    """The second one would make Dramatiq drop what is under way."""
    take_repeated_signals_once()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)

    assert heard == [signal.SIGTERM]


def test_a_later_signal_is_obeyed(heard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashsale.process, "_SAME_REQUEST_SECONDS", 0.0)
    take_repeated_signals_once()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)

    assert heard == [signal.SIGTERM, signal.SIGTERM]
