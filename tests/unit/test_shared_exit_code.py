"""The processes of one replay end with one exit code."""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from flashsale.dead_letters.shared_exit_code import SharedExitCode


def test_one_process_replays_and_the_others_end_with_its_code(tmp_path: Path) -> None:
    with ExitStack() as others:
        with SharedExitCode(tmp_path) as first:
            other = others.enter_context(SharedExitCode(tmp_path))
            first.write(5)
            late = others.enter_context(SharedExitCode(tmp_path))
            assert (first.is_ours, other.is_ours, late.is_ours) == (True, False, False)

        assert other.read() == 5

    assert not list(tmp_path.iterdir())


def test_the_others_fail_where_the_one_that_replays_told_no_code(tmp_path: Path) -> None:
    with ExitStack() as others:
        with SharedExitCode(tmp_path):
            other = others.enter_context(SharedExitCode(tmp_path))

        assert other.read() == 1


def test_what_a_killed_master_of_the_same_process_id_left_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / f"replay-{os.getpid()}.lock").write_text("4")
    with ExitStack() as others:
        with SharedExitCode(tmp_path) as first:
            other = others.enter_context(SharedExitCode(tmp_path))
            assert first.is_ours
            first.write(5)

        assert other.read() == 5


def test_the_processes_of_one_master_share_a_file_named_after_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with SharedExitCode(tmp_path) as master:
        process = context.Process(target=_tell_whose_it_is, args=(tmp_path,))
        process.start()
        process.join(30)

        assert master.is_ours
        assert process.exitcode == 3
        assert [file.name for file in tmp_path.iterdir()] == [f"replay-{os.getpid()}.lock"]


def _tell_whose_it_is(folder: Path) -> None:
    with SharedExitCode(folder) as code:
        sys.exit(4 if code.is_ours else 3)
