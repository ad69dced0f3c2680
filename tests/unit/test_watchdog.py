"""The end of a process that does not end by itself."""

from __future__ import annotations

import threading
from queue import Queue

import pytest

import flashsale.watchdog
from flashsale import exit_codes
from flashsale.watchdog import Backstop, Watchdog

SOON_SECONDS = 5.0


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashsale.watchdog, "_CHECK_SECONDS", 0.001)


@pytest.mark.usefixtures("often")
def test_a_process_with_a_symptom_is_ended_and_one_without_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    symptoms, ended = [None, None, "it stands still"], Queue[int]()
    Watchdog(lambda: symptoms.pop(0), end=ended.put).start()

    assert ended.get(timeout=SOON_SECONDS) == exit_codes.STUCK
    assert symptoms == []
    assert [record.cause for record in caplog.records] == ["it stands still"]


@pytest.mark.usefixtures("often")
def test_a_look_for_a_symptom_that_fails_is_one(caplog: pytest.LogCaptureFixture) -> None:
    """Else the process would go on unwatched. The error's text may hold values."""

    def fail() -> None:
        raise RuntimeError("user-1")

    ended: Queue[int] = Queue()
    Watchdog(fail, end=ended.put).start()

    assert ended.get(timeout=SOON_SECONDS) == exit_codes.STUCK
    assert [(record.message, record.cause) for record in caplog.records] == [
        ("worker.stuck", "the look for a symptom failed: RuntimeError")
    ]


@pytest.mark.usefixtures("often")
def test_a_watchdog_that_was_stopped_before_its_start_or_twice_ends_nothing() -> None:
    before, ended = set(threading.enumerate()), Queue[int]()
    for _ in range(2):
        watchdog = Watchdog(lambda: "a symptom", end=ended.put)
        watchdog.stop()
        watchdog.stop()
        watchdog.start()
        watchdog.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON_SECONDS)

    assert ended.empty()


def test_a_shutdown_that_takes_too_long_is_cut_off_after_the_last_words() -> None:
    happened: Queue[object] = Queue()
    Backstop(0.01, lambda: happened.put("last words"), end=happened.put).start()

    assert happened.get(timeout=SOON_SECONDS) == "last words"
    assert happened.get(timeout=SOON_SECONDS) == exit_codes.FAILURE


def test_last_words_that_never_end_do_not_keep_the_process() -> None:
    ended: Queue[int] = Queue()
    released = threading.Event()
    Backstop(0.01, released.wait, end=ended.put).start()

    assert ended.get(timeout=SOON_SECONDS) == exit_codes.FAILURE
    released.set()


def test_a_shutdown_in_time_is_not_cut_off() -> None:
    ended: Queue[int] = Queue()
    backstop = Backstop(SOON_SECONDS, lambda: None, end=ended.put)
    before = set(threading.enumerate())
    backstop.start()
    backstop.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON_SECONDS)

    assert ended.empty()


def test_a_backstop_that_was_stopped_before_its_start_or_twice_ends_nothing() -> None:
    before, ended = set(threading.enumerate()), Queue[int]()
    backstop = Backstop(SOON_SECONDS, lambda: None, end=ended.put)
    backstop.stop()
    backstop.stop()
    backstop.start()
    backstop.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON_SECONDS)

    assert ended.empty()


def test_a_shutdown_that_is_cut_off_gives_its_account(caplog: pytest.LogCaptureFixture) -> None:
    ended: Queue[int] = Queue()
    Backstop(0.01, lambda: None, account=lambda: {"settled": 3}, end=ended.put).start()

    assert ended.get(timeout=SOON_SECONDS) == exit_codes.FAILURE
    (line,) = caplog.records
    assert (line.message, line.seconds, line.settled) == ("worker.shutdown_abandoned", 0.01, 3)


def test_an_account_that_fails_keeps_neither_the_line_nor_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> dict[str, object]:
        raise RuntimeError("user-1")

    happened: Queue[object] = Queue()
    Backstop(0.01, lambda: happened.put("last words"), account=fail, end=happened.put).start()

    assert happened.get(timeout=SOON_SECONDS) == "last words"
    assert happened.get(timeout=SOON_SECONDS) == exit_codes.FAILURE
    (line,) = caplog.records
    assert (line.message, line.unaccounted) == ("worker.shutdown_abandoned", "RuntimeError")
