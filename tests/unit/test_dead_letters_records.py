"""What is remembered between commands, and how a run's edit is named and made."""

from __future__ import annotations

import getpass
import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flashsale.dead_letters.editing import Edit, NotEditable
from flashsale.dead_letters.records import NoSuchPlan, Records, RecordsUnusable

LETTERS = Counter({"ab" * 16: 2, "cd" * 16: 1})


def unusable(folder: Path, why: str) -> str:
    return (
        f"{folder}/dead-letters cannot be used ({why}), and replays are counted there; set"
        " FLASHSALE_STATE_FOLDER to a folder of this user's own"
    )


def refusal(folder: Path) -> str:
    with pytest.raises(RecordsUnusable) as refused:
        Records(str(folder))
    return str(refused.value)


def in_the_file(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "dead-letters/records.sqlite")) as database, database:
        return database.execute(statement).fetchall()


def test_folders_that_cannot_be_used_are_told_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, damaged, elsewhere = (tmp_path / name for name in ("file", "damaged", "elsewhere"))
    file.touch()
    (damaged / "dead-letters").mkdir(parents=True)
    (damaged / "dead-letters/records.sqlite").write_bytes(b"nonsense" * 1_000)
    elsewhere.mkdir()
    (elsewhere / "dead-letters").symlink_to(damaged)

    assert refusal(file) == unusable(file, "File exists")
    assert refusal(damaged) == unusable(damaged, "file is not a database")
    assert refusal(elsewhere) == unusable(elsewhere, "it belongs to somebody else")
    another_user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another_user)
    assert refusal(tmp_path) == unusable(tmp_path, "it belongs to somebody else")


def test_all_folders_that_it_makes_are_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "far" / "state"
    umask = os.umask(0)
    try:
        for _ in range(2):
            with Records(str(state)) as records:
                assert records.folder == state / "dead-letters"
    finally:
        os.umask(umask)

    assert [folder.stat().st_mode & 0o777 for folder in (state, records.folder)] == [0o700] * 2


def test_a_plan_is_kept_as_it_was_shown(tmp_path: Path) -> None:
    with Records(str(tmp_path)) as records:
        plain = records.save_plan("discard", "letters", LETTERS, largest_bytes=7)
        edited = records.save_plan("retry", "letters", LETTERS, largest_bytes=0, edit="e")

        assert plain[1:] == ("discard", "letters", 7, "", False, LETTERS)
        assert edited[1:] == ("retry", "letters", 0, "e", False, LETTERS)
        assert len(plain.name) == len(edited.name) == 8
        records.begin(plain)
        assert records.load_plan(plain.name) == plain._replace(begun=True)
        assert records.load_plan(edited.name) == edited
        assert records.load_plan(edited.name).begun is False


def test_a_plan_that_is_not_there_is_told_with_the_way_to_make_one(tmp_path: Path) -> None:
    with Records(str(tmp_path)) as records, pytest.raises(NoSuchPlan) as missing:
        records.load_plan("0badcafe")

    assert str(missing.value) == (
        f"there is no plan '0badcafe' in {tmp_path}/dead-letters; `flashsale dead-letters retry"
        " --dry-run` makes one"
    )


def test_a_plan_is_forgotten_after_thirty_days_with_its_letters(tmp_path: Path) -> None:
    with Records(str(tmp_path)) as records:
        old, young = (
            records.save_plan("retry", "letters", LETTERS, largest_bytes=7) for _ in range(2)
        )
    for plan, age in ((old, "-30 days', '-1 minute"), (young, "-30 days', '+1 hour")):
        in_the_file(
            tmp_path,
            f"UPDATE plans SET made_at = datetime('now', '{age}') WHERE plan = '{plan.name}'",
        )

    with Records(str(tmp_path)) as records:
        assert records.load_plan(young.name) == young
        with pytest.raises(NoSuchPlan):
            records.load_plan(old.name)
    assert in_the_file(tmp_path, "SELECT DISTINCT plan FROM planned") == [(young.name,)]


def test_what_fails_in_the_middle_leaves_nothing_and_blocks_nobody(tmp_path: Path) -> None:
    with Records(str(tmp_path)) as records:
        with pytest.raises(ValueError, match="hexadecimal"):
            records.save_plan("retry", "letters", Counter(["no digest"]), largest_bytes=7)
        with Records(str(tmp_path)) as another:
            another.count_replays(["ef"])
        records.count_replays(["ef", "00"])

        assert (records.replays("ef"), records.replays("00"), records.replays("ff")) == (2, 1, 0)
    assert in_the_file(tmp_path, "SELECT * FROM plans") == []


def test_the_journal_has_a_line_of_each_run_with_its_time_and_its_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    before = datetime.now(UTC)
    with Records(str(tmp_path)) as records:
        lines = [records.log_run(what=what, done=3) for what in ("retry", "discard")]

        def nobody() -> str:
            raise KeyError

        monkeypatch.setattr(getpass, "getuser", nobody)
        lines.append(records.log_run())

    written = (tmp_path / "dead-letters/journal.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == lines
    assert [(line["by"], line.get("what"), line.get("done")) for line in lines] == [
        ("alice", "retry", 3),
        ("alice", "discard", 3),
        (f"uid {os.getuid()}", None, None),
    ]
    for line in lines:
        at = datetime.fromisoformat(line["at"])
        assert at.utcoffset() == timedelta(0)
        assert before <= at <= datetime.now(UTC)


def test_a_journal_that_cannot_be_written_is_told_with_its_folder(tmp_path: Path) -> None:
    with Records(str(tmp_path)) as records:
        (tmp_path / "dead-letters/journal.jsonl").mkdir()

        with pytest.raises(RecordsUnusable) as refused:
            records.log_run(what="retry")

    assert str(refused.value) == unusable(tmp_path, "Is a directory")


def test_an_edit_has_one_fingerprint_in_any_order_of_its_keys() -> None:
    edits = [
        Edit({"saleId": "s", "userId": "u"}),
        Edit({"saleId": "s"}),
        Edit({"saleId": "t"}),
        Edit({}, b"body"),
        Edit({}, b""),
    ]

    assert Edit({}).fingerprint == ""
    assert Edit({"userId": "u", "saleId": "s"}).fingerprint == edits[0].fingerprint
    assert len({edit.fingerprint for edit in edits}) == len(edits)
    assert {len(edit.fingerprint) for edit in edits} == {64}


def test_an_edit_is_described_by_what_it_sets() -> None:
    assert Edit({"userId": 1, "saleId": 2}).described == "saleId, userId"
    assert Edit({}).described == ""
    assert Edit({}, b"").described == "body"


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        ('{"saleId": "s", "data": {}}', '{"saleId":"s","data":{},"userId":"Zoë"}'),
        ('{"data": ["s"]}', '{"data":["s"],"userId":"Zoë"}'),
        ('{"data": {"a": [1, 2]}}', '{"data":{"a":[1,2],"userId":"Zoë"}}'),
        ("{}", '{"userId":"Zoë"}'),
    ],
)
def test_an_edited_event_is_written_as_short_as_the_api_writes_it(body: str, edited: str) -> None:
    assert Edit({"userId": "Zoë"}).apply(body.encode()) == edited.encode()


def test_half_of_a_surrogate_pair_outlives_an_edit() -> None:
    assert Edit({"userId": "u"}).apply(b'{"saleId": "\\ud800"}') == (
        b'{"saleId":"\xed\xa0\x80","userId":"u"}'
    )


def test_a_whole_body_takes_the_place_of_the_event_even_if_it_is_empty() -> None:
    assert Edit({"userId": "u"}, b"").apply(b"{}") == b""
    with pytest.raises(NotEditable) as refused:
        Edit({"userId": "u"}).apply(b"[]")
    assert str(refused.value) == "the body is no JSON object; edit it as a whole, with --edit"
