"""How every command behaves towards its user: exit codes, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_help_and_runbook_list_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    codes -= {exit_codes.STUCK}  # the worker's alone
    exits.run(cli, ["--help"])
    helped = capsys.readouterr().out.partition("Exit codes:")[2].partition("Options:")[0]
    (told,) = re.findall(r"^Exit codes: (.+?)\.$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)

    assert {int(code) for code in re.findall(r"^ +(\d+) ", helped, re.MULTILINE)} == codes
    assert {int(code) for code in re.findall(r"\d+", told)} == codes


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--grace", "nan"],
        ["verify", "--timeout", "inf"],
        ["audit", "reconcile", "--grace", "nan"],
        ["top", "--interval", "nan"],
        ["dead-letters", "retry", "--rate", "nan"],
        ["dead-letters", "retry", "--max-failed", "NaN"],
        ["publish", "--rate", "inf"],
        ["demo", "--bad-share", "nan"],
    ],
    ids=" ".join,
)
def test_what_is_no_number_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.run(cli, arguments) == exit_codes.USAGE
    assert "Invalid value for" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--id", "--text"])
@pytest.mark.parametrize("command", ["retry", "discard"])
def test_an_empty_choice_does_not_mean_every_dead_letter(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a script's variable is not set."""
    assert exits.run(cli, ["dead-letters", command, option, ""]) == exit_codes.USAGE
    assert "would mean every letter" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is Linux's")
def test_a_disk_that_is_full_is_an_error_without_a_traceback() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flashsale", "completion", "bash"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")
