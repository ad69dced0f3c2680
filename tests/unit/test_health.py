"""When a worker is taken to live, and to be ready."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flashsale.cli import cli
from flashsale.health import why_not_alive, why_not_ready
from flashsale.reports import prepare, worker_folder, write_report
from tests.support.reports import ended_pid, report

STALE_SECONDS = 60.0
PID = os.getpid()


def test_a_worker_whose_processes_consume_and_write_orders_lives_and_is_ready() -> None:
    reports = [report(), report(breaker="trial")]  # the first order will close that one

    assert why_not_alive(reports) == []
    assert why_not_ready(reports) == []


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"breaker": "open", "is_consuming": False}, "waits for the database"),
        ({"is_consuming": False}, "does not consume"),
        ({"state": "draining", "is_consuming": False}, "is stopping"),
    ],
    ids=["database", "broker", "stopping"],
)
def test_what_a_restart_does_not_mend_makes_it_unready_and_no_less_alive(
    fields: dict[str, Any], cause: str
) -> None:
    reports = [report(**fields), report()]

    assert why_not_alive(reports) == []
    (why,) = why_not_ready(reports)
    assert cause in why


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"age_seconds": 60}, f"process {PID} has not moved for 60 s"),
        ({"symptom": "a thread has ended"}, f"process {PID} cannot go on: a thread has ended"),
    ],
    ids=["silent", "symptom"],
)
def test_a_process_that_does_not_move_is_not_alive(fields: dict[str, Any], cause: str) -> None:
    reports = [report(), report(**fields)]

    assert why_not_alive(reports) == [cause]
    assert cause in why_not_ready(reports)


def test_a_process_that_ended_without_a_stop_is_noticed_before_it_is_overdue() -> None:
    assert "has ended without a stop" in why_not_alive([report(), report(pid=ended_pid())])[0]


def test_a_process_that_misses_one_of_its_queues_lives_and_is_not_ready() -> None:
    reports = [report(is_consuming=False, missing_queues=["purchase-2"])]

    assert why_not_alive(reports) == []
    assert why_not_ready(reports) == [
        f"process {PID} does not consume purchase-2: see broker.queue_lost in its log"
    ]


def test_processes_that_have_stopped_say_nothing_of_those_that_run() -> None:
    stopped = report(state="stopped", pid=ended_pid(), age_seconds=STALE_SECONDS)

    assert why_not_ready([stopped, report()]) == []
    assert "is `dramatiq flashsale.actors` running?" in why_not_alive([stopped])[0]


# The command


def health(folder: Path, *arguments: str) -> tuple[int, str]:
    env = {"FLASHSALE_STATE_FOLDER": str(folder)}
    result = CliRunner().invoke(cli, ["health", *arguments], env=env, standalone_mode=False)
    return result.return_value, result.stdout.strip()


def test_the_command_tells_in_its_exit_code_and_in_one_line(tmp_path: Path) -> None:
    """This process's parent is its worker's master, as far as can be told."""
    folder = worker_folder(tmp_path)
    prepare(folder)
    write_report(folder, report())
    assert health(tmp_path) == (0, "ok")

    write_report(folder, report(breaker="open"))
    assert health(tmp_path, "--live") == (0, "ok")
    code, line = health(tmp_path, "--ready")
    assert code == 1
    assert (
        line
        == f"process {PID} waits for the database: see work.suspended or work.waiting in its log"
    )


def test_a_worker_whose_master_is_gone_does_not_count(tmp_path: Path) -> None:
    folder = worker_folder(tmp_path, ended_pid())
    prepare(folder)
    write_report(folder, report())

    code, line = health(tmp_path)
    assert (code, line[:37]) == (1, "no worker process has reported: is `d")


def test_the_command_loads_nothing_that_takes_long() -> None:
    """A probe runs every few seconds, beside the work."""
    heavy = ("dramatiq", "peewee", "pika", "prometheus_client", "rich", "structlog")
    script = (
        "import sys; from click.testing import CliRunner; from flashsale.cli import cli;"
        "CliRunner().invoke(cli, ['health']);"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.strip() == "[]"
