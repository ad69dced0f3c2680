"""Log lines: JSON for machines, readable on a terminal, and never in the way of the work."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

import flashsale.logs
from flashsale.hints import HINTS
from flashsale.logs import LogQueue, handler, quieten_libraries
from flashsale.settings import LogFormat

SOON_SECONDS = 5.0
STALLED_STOP_SECONDS = 4.0
log = logging.getLogger("flashsale.somewhere")


@contextmanager
def queued(target: logging.Handler, level: str = "INFO") -> Iterator[LogQueue]:
    lines = LogQueue(target)
    before = logging.getLogger().level
    lines.start(level)
    try:
        yield lines
    finally:
        lines.stop()
        logging.getLogger().setLevel(before)


@pytest.fixture
def unread_pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """The two ends of a pipe that nobody reads, the reading one first."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w", buffering=1) as writer:
        yield reader, writer


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables(log_format: LogFormat) -> None:
    """They hold passwords and shoppers; and rich, where it is installed, would show them."""
    stream = io.StringIO()
    password = "canary"  # noqa: S105
    with queued(handler(stream, log_format, on_terminal=False)):
        try:
            int(len(password) * "x")
        except ValueError:
            log.exception("somewhere.failed")

    assert "ValueError" in stream.getvalue()
    assert "canary" not in stream.getvalue().replace('password = "canary"', "")


def test_a_line_is_json_off_a_terminal() -> None:
    stream = io.StringIO()
    with queued(handler(stream, "auto", on_terminal=False)):
        log.warning("work.suspended", extra={"cause": "a\nb", "count": 3})

    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields.pop("timestamp").endswith("Z")
    assert fields == {
        "event": "work.suspended",
        "level": "warning",
        "logger": "flashsale.somewhere",
        "cause": "a\nb",
        "count": 3,
        "hint": HINTS["work.suspended"],
    }


def test_an_exception_is_a_field_of_its_line() -> None:
    stream = io.StringIO()
    with queued(handler(stream, "json", on_terminal=True)):
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            log.exception("went.wrong")

    (line,) = stream.getvalue().splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]


@pytest.mark.parametrize(("log_format", "on_terminal"), [("auto", True), ("console", False)])
def test_a_line_is_for_people_on_a_terminal(log_format: str, on_terminal: bool) -> None:
    stream = io.StringIO()
    with queued(handler(stream, log_format, on_terminal=on_terminal)):  # type: ignore[arg-type]
        log.warning("work.suspended", extra={"count": 3})

    assert "work.suspended" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert ("\x1b[" in stream.getvalue()) is on_terminal


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    with queued(handler(stream, "json", on_terminal=False), "WARNING"):
        log.info("no")
        log.warning("yes")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_what_libraries_say_of_each_step_is_left_out() -> None:
    quieten_libraries()

    assert not logging.getLogger("apscheduler.executors.default").isEnabledFor(logging.INFO)
    assert not logging.getLogger("dramatiq.worker.WorkerThread").isEnabledFor(logging.INFO)
    assert not logging.getLogger("peewee").isEnabledFor(logging.DEBUG)


def test_a_reader_that_stalls_costs_lines_and_never_time(
    unread_pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it reads again, it is told how many lines it has missed."""
    monkeypatch.setattr(flashsale.logs, "_WAITING_LINES", 100)
    reader, writer = unread_pipe
    with queued(handler(writer, "json", on_terminal=False)) as lines:
        begun = time.monotonic()
        for number in range(2_000):
            log.info("line", extra={"number": number, "padding": "x" * 1_000})
        assert time.monotonic() - begun < SOON_SECONDS
        dropped = lines.dropped
        assert dropped > 1_000

        told = (json.loads(line) for line in reader)
        report = next(fields for fields in told if fields["event"] == "logs.dropped")
        assert report["lines"] == dropped


@pytest.mark.parametrize("lines_before", [80, 300], ids=["half-full", "full"])
def test_a_stop_does_not_wait_for_a_reader_that_stalls(
    unread_pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch, lines_before: int
) -> None:
    monkeypatch.setattr(flashsale.logs, "_WAITING_LINES", 100)
    reader, writer = unread_pipe
    with queued(handler(writer, "json", on_terminal=False)) as lines:
        for _ in range(lines_before):
            log.info("line", extra={"padding": "x" * 2_000})
        begun = time.monotonic()
        lines.stop()
        assert time.monotonic() - begun < STALLED_STOP_SECONDS
        drain = threading.Thread(target=reader.read)  # or the queue's thread would never end
        drain.start()
    writer.close()
    drain.join()


def test_a_stop_gets_the_last_lines_out_and_gives_the_root_logger_back() -> None:
    before = list(logging.getLogger().handlers)
    stream = io.StringIO()
    with queued(handler(stream, "json", on_terminal=False)) as lines:
        assert logging.getLogger().handlers != before
        for number in range(1_000):
            log.info("line", extra={"number": number})
        lines.stop()
        assert len(stream.getvalue().splitlines()) == 1_000
        lines.stop()

    assert logging.getLogger().handlers == before


def test_a_queue_that_was_never_started_stops() -> None:
    before = list(logging.getLogger().handlers)
    LogQueue(handler(io.StringIO(), "json", on_terminal=False)).stop()

    assert logging.getLogger().handlers == before
