"""`flashsale dead-letters retry --edit`: one letter, in the operator's own editor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashsale import exit_codes
from tests.integration.conftest import Run
from tests.integration.test_cli_dead_letters_change import journal
from tests.support.letters import LetterBox, event, listed

Editor = Callable[[str], None]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """Makes the operator's editor of a line of shell; the file's name is its first argument."""

    def make(line: str) -> None:
        path = tmp_path / "editor"
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o700)
        monkeypatch.setenv("EDITOR", str(path))
        monkeypatch.delenv("VISUAL", raising=False)

    return make


def test_one_event_can_be_edited_by_hand(
    run: Run, box: LetterBox, tmp_path: Path, editor: Editor
) -> None:
    box.put([event("alice"), event("bob")])
    editor("sed -i s/bob/carol/ $1")
    (bob,) = listed(run, "--user", "bob")

    assert run("retry", "--edit")[0] == exit_codes.USAGE
    assert run("retry", "--edit", "--id", bob["id"][:10])[0] == exit_codes.OK

    assert box.bodies(box.purchases) == [event("carol")]
    assert box.bodies(box.letters) == [event("alice")]
    assert journal(tmp_path)[0]["edit"] == "body"


def test_a_letter_that_dies_while_the_editor_is_open_is_not_meant(
    run: Run, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.put([event("bob")])

    def edit(text: str, **_: Any) -> str:
        box.put([event("bonnie")])
        return text.replace("bob", "carol")

    monkeypatch.setattr("click.edit", edit)
    assert run("retry", "--edit", "--text", "bo")[0] == exit_codes.OK

    assert box.bodies(box.purchases) == [event("carol")]
    assert box.bodies(box.letters) == [event("bonnie")]


def test_an_editor_that_leaves_all_as_it_is_changes_nothing(
    run: Run, box: LetterBox, editor: Editor
) -> None:
    box.put([event("bob")])
    editor("true")

    code, _, err = run("retry", "--edit")

    assert code == exit_codes.FAILURE
    assert "the editor left it as it is; nothing was changed" in err
    assert box.bodies(box.letters) == [event("bob")]


def test_a_body_that_is_no_text_is_not_given_to_an_editor(
    run: Run, box: LetterBox, editor: Editor, tmp_path: Path
) -> None:
    box.put([b"\xff\xfe"], "encoding")
    editor(f"touch {tmp_path}/opened")

    code, _, err = run("retry", "--edit")

    assert code == exit_codes.FAILURE
    assert "the body is no text that could be edited" in err
    assert not (tmp_path / "opened").exists()


def test_a_retry_that_finds_nothing_says_so_to_programs_too(run: Run, box: LetterBox) -> None:
    code, out, _ = run("retry", "--json")

    assert code == exit_codes.OK
    assert json.loads(out)["planned"] == 0
