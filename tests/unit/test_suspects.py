"""What is known of suspects outlives the process, and nothing about them is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flashsale.suspects import Suspects

BODY = b'{"userId":"canary"}'


def test_deaths_are_counted_across_processes_until_one_survives(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for deaths in range(3):
        assert Suspects(folder).deaths(BODY) == deaths
        Suspects(folder).begin([BODY])

    Suspects(folder).end([BODY])

    assert Suspects(folder).deaths(BODY) == 0
    assert list(folder.iterdir()) == []


def test_the_folder_is_for_its_owner_and_holds_no_event(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    Suspects(folder).begin([BODY])

    assert folder.stat().st_mode & 0o077 == 0
    (file,) = folder.iterdir()
    assert b"canary" not in file.name.encode() + file.read_bytes()


def test_an_unusable_folder_suspects_nobody_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    suspects = Suspects(in_the_way / "state")

    suspects.begin([BODY])
    suspects.end([BODY])

    assert suspects.deaths(BODY) == 0
    assert [record.message for record in caplog.records] == ["suspects.unusable"]


def test_old_suspects_are_forgotten_at_the_start(tmp_path: Path) -> None:
    """Somebody else has settled them long ago."""
    Suspects(tmp_path).begin([BODY])
    (file,) = tmp_path.iterdir()
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(file, (week_ago, week_ago))

    assert Suspects(tmp_path).deaths(BODY) == 0
