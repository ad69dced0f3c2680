"""What is known of suspects outlives the process, and nothing about them is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flashsale.suspects import Suspects

BODY = b'{"userId":"canary"}'
OTHER = b"other"


def marks(state: Path) -> list[Path]:
    return list((state / "suspects").iterdir())


def make_old(path: Path) -> None:
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(path, (week_ago, week_ago), follow_symlinks=False)


def causes(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.message for record in caplog.records} <= {"suspects.unusable"}
    return [vars(record)["cause"] for record in caplog.records]


def test_deaths_are_counted_across_processes_until_one_survives(tmp_path: Path) -> None:
    for deaths in range(3):
        assert Suspects(tmp_path).deaths(BODY) == deaths
        Suspects(tmp_path).begin([BODY])

    Suspects(tmp_path).end([BODY])

    assert Suspects(tmp_path).deaths(BODY) == 0
    assert marks(tmp_path) == []


def test_an_event_that_stands_twice_in_a_batch_dies_once(tmp_path: Path) -> None:
    Suspects(tmp_path).begin([BODY, BODY])

    assert Suspects(tmp_path).deaths(BODY) == 1


def test_a_process_that_ends_by_itself_forgives_what_it_has_begun(tmp_path: Path) -> None:
    """And nothing else: what another process has begun is at work there."""
    Suspects(tmp_path).begin([OTHER])
    suspects = Suspects(tmp_path)
    suspects.begin([BODY])

    suspects.forgive()
    suspects.begin([BODY])  # its threads may go on until the end

    assert Suspects(tmp_path).deaths(BODY) == 0
    assert Suspects(tmp_path).deaths(OTHER) == 1


def test_the_folder_is_for_its_owner_and_holds_no_event(tmp_path: Path) -> None:
    state = tmp_path / "state"
    Suspects(state).begin([BODY])

    assert state.stat().st_mode & 0o077 == 0
    (file,) = marks(state)
    assert (file.stat().st_mode | file.parent.stat().st_mode) & 0o077 == 0
    assert b"canary" not in file.name.encode() + file.read_bytes()


def test_an_unusable_folder_suspects_nobody_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    suspects = Suspects(in_the_way / "state")

    suspects.begin([BODY, OTHER])
    suspects.end([BODY, OTHER])

    assert suspects.deaths(BODY) == 0
    assert len(causes(caplog)) == 1


@pytest.mark.parametrize("name", ["state", "state/suspects"])
def test_a_link_is_refused_whoever_owns_its_end(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = tmp_path / name
    link.parent.mkdir(mode=0o700, exist_ok=True)
    link.symlink_to(elsewhere)

    Suspects(tmp_path / "state").begin([BODY])

    assert list(elsewhere.iterdir()) == []
    assert causes(caplog) == ["the folder is a link; name the folder itself"]


@pytest.mark.parametrize("name", ["state", "state/suspects"])
def test_a_folder_that_others_may_write_to_is_refused(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They could make any event look like poison."""
    state = tmp_path / "state"
    (state / "suspects").mkdir(parents=True)
    state.chmod(0o700)
    (tmp_path / name).chmod(0o770)

    Suspects(state).begin([BODY])

    assert marks(state) == []
    assert causes(caplog) == ["others may write to the folder; take that right from them"]


def test_a_link_in_the_place_of_a_mark_is_not_followed(tmp_path: Path) -> None:
    Suspects(tmp_path).begin([BODY])
    (mark,) = marks(tmp_path)
    mark.unlink()
    target = tmp_path / "target"
    target.touch()
    mark.symlink_to(target)

    Suspects(tmp_path).begin([BODY])

    assert target.read_bytes() == b""


def test_old_suspects_are_forgotten_at_the_start(tmp_path: Path) -> None:
    """Somebody else has settled them long ago."""
    Suspects(tmp_path).begin([BODY])
    (file,) = marks(tmp_path)
    make_old(file)

    assert Suspects(tmp_path).deaths(BODY) == 0


def test_whatever_else_is_old_in_the_folders_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "suspects"
    folder.mkdir(mode=0o700)
    others = [tmp_path / "purchases.db", tmp_path / ("a" * 64), folder / "notes"]
    for other in others:
        other.touch()
        make_old(other)
    directory = folder / ("b" * 64)
    directory.mkdir()
    make_old(directory)

    Suspects(tmp_path).begin([BODY])

    assert [path for path in (*others, directory) if not path.exists()] == []
    assert Suspects(tmp_path).deaths(BODY) == 1
    assert causes(caplog) == []


def test_a_mark_that_a_sibling_forgets_first_is_no_reason_to_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both list the folder, and one of them comes too late."""
    Suspects(tmp_path).begin([OTHER])
    (mark,) = marks(tmp_path)
    iterdir = Path.iterdir

    def list_then_lose(folder: Path) -> list[Path]:
        paths = list(iterdir(folder))
        mark.unlink()
        return paths

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", list_then_lose)
        Suspects(tmp_path).begin([BODY])

    assert Suspects(tmp_path).deaths(BODY) == 1
    assert causes(caplog) == []


def test_a_mark_that_cannot_be_taken_back_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch whose end it is must still be concluded."""
    suspects = Suspects(tmp_path)
    suspects.begin([BODY])
    (mark,) = marks(tmp_path)
    mark.unlink()
    mark.mkdir()  # which unlink refuses, also for root

    suspects.end([BODY, OTHER])

    assert len(causes(caplog)) == 1
