"""How every command behaves towards its reader: colours, bars, and exit codes."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits

DEMO = [sys.executable, "-m", "flashsale", "demo", "--events", "200"]
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*[39]\d")


def on_a_terminal(**env: str) -> str:
    """All that a demo writes to its terminal."""
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        DEMO, stdin=inner, stdout=inner, stderr=inner, env={**os.environ, "TERM": "xterm", **env}
    )
    os.close(inner)
    written = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while part := os.read(terminal, 65_536):
            written += part
    os.close(terminal)
    assert process.wait(60) == 0
    return written.decode()


def test_a_terminal_gets_colours_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = on_a_terminal()

    assert _COLOUR.search(written)
    assert "events settled" in written


def test_no_color_is_honoured() -> None:
    written = on_a_terminal(NO_COLOR="1")

    assert "ok" in written
    assert not _COLOUR.search(written)


def test_a_file_gets_neither_colours_nor_a_bar() -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=60, check=True)

    assert "\x1b" not in done.stdout + done.stderr
    assert "events settled" not in done.stderr


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
