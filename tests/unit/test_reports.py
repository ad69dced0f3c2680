"""What a process writes of itself, and what others find of it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

import flashsale.reporting
from flashsale.batching import Tally
from flashsale.health import why_not_alive
from flashsale.reporting import Reporter, counts_of, tally_now
from flashsale.reports import (
    Report,
    prepare,
    read_reports,
    running_workers,
    worker_folder,
    write_report,
)
from tests.support.reports import ended_pid, report
from tests.support.waiting import wait_until

DAY_SECONDS = 86_400


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    tally = Tally(delivered=3, dead_lettered=1)
    tally.reasons["json"] += 1
    written = report(tally, faults=[["system", "53", 2]])
    prepare(tmp_path / "processes" / "one")
    write_report(tmp_path / "processes" / "one", written)

    assert read_reports(tmp_path / "processes" / "one") == [written]


def test_what_is_no_whole_report_is_left_out(tmp_path: Path) -> None:
    write_report(tmp_path, report())
    for name, text in [("1.json", '{"pid":'), ("2.json", "[]"), ("3.json", '{"pid": 3}')]:
        (tmp_path / name).write_text(text)
    (tmp_path / "4.new").write_text("{}")

    assert [each.pid for each in read_reports(tmp_path)] == [os.getpid()]


def test_a_process_that_begins_counts_those_of_before_a_reload_as_stopped(tmp_path: Path) -> None:
    """Else their end, however it was, would keep the probes of the next ones red for ever."""
    folder = tmp_path / "processes" / "one"
    prepare(folder)
    cut_off = report(Tally(delivered=3), pid=ended_pid(), state="draining")
    write_report(folder, cut_off)
    write_report(folder, report())

    prepare(folder)

    by_pid = {each.pid: each for each in read_reports(folder)}
    assert by_pid[cut_off.pid] == replace(cut_off, state="stopped")
    assert by_pid[os.getpid()].state == "running"
    assert why_not_alive(by_pid.values()) == []


def test_a_master_that_runs_is_told_from_an_earlier_one_with_its_id(tmp_path: Path) -> None:
    """In a container every master is process 1."""
    folder = worker_folder(tmp_path)
    prepare(folder)
    namespace, pid, started = folder.name.split("-")
    assert running_workers(tmp_path) == [folder]

    folder.rename(folder.with_name(f"{namespace}-{pid}-{int(started) - 1}"))
    assert running_workers(tmp_path) == []


def test_another_container_on_the_same_volume_is_not_looked_at(tmp_path: Path) -> None:
    folder = worker_folder(tmp_path)
    namespace, pid, started = folder.name.split("-")
    prepare(folder.with_name(f"{int(namespace) + 1}-{pid}-{started}"))

    assert running_workers(tmp_path) == []


def test_the_folders_of_workers_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    folder = worker_folder(tmp_path)
    old, young = folder.with_name("1-2-3"), folder.with_name("1-2-4")
    for each in (old, young):
        prepare(each)
        write_report(each, report())
    long_ago = time.time() - DAY_SECONDS
    os.utime(old, (long_ago, long_ago))
    prepare(folder)

    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(
        (young.name, folder.name)
    )


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Whoever writes reports there would decide what a probe says."""
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes").chmod(0o777)

    with pytest.raises(PermissionError, match="others may write"):
        prepare(worker_folder(tmp_path))


def test_a_process_reports_at_its_start_each_second_and_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flashsale.reporting, "_INTERVAL_SECONDS", 0.01)
    now = report()

    def found() -> Report:
        (one,) = read_reports(worker_folder(tmp_path))
        return one

    reporter = Reporter(str(tmp_path), lambda: now)
    reporter.start()
    try:
        assert found() == now
        now = replace(now, state="draining")
        wait_until(lambda: found() == now, 5, "the change is reported")
    finally:
        now = replace(now, state="stopped")
        reporter.stop()
    assert found() == now
    reporter.stop()


def test_a_stop_before_a_start_writes_nothing(tmp_path: Path) -> None:
    Reporter(str(tmp_path), report).stop()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_told_once_and_used_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flashsale.reporting, "_INTERVAL_SECONDS", 0.01)
    state_folder = tmp_path / "state"
    state_folder.write_text("a file")
    tries = []

    def make() -> Report:
        tries.append(1)
        return report()

    reporter = Reporter(str(state_folder), make)
    reporter.start()
    try:
        state_folder.unlink()
        wait_until(lambda: read_reports(worker_folder(state_folder)), 5, "a report is there")
    finally:
        reporter.stop()

    (line,) = caplog.records
    assert (line.message, line.levelno) == ("reports.unwritten", logging.WARNING)


def test_what_is_half_counted_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer's thread does not wait for those who read."""
    tally = Tally(delivered=2, settled=1)  # and the other, settled too, not counted yet

    def consumer_goes_on(_: float) -> None:
        tally.settled = 2

    monkeypatch.setattr(flashsale.reporting.time, "sleep", consumer_goes_on)

    assert tally_now(tally).settled == 2


def test_a_tally_that_stays_wrong_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashsale.reporting, "_TALLY_PAUSE_SECONDS", 0)

    assert counts_of(tally_now(Tally(delivered=2)))["delivered"] == 2
