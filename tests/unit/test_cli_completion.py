"""Shells complete the ``flashsale`` command, at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from flashsale import exit_codes
from flashsale.cli import COMMANDS, cli, exits

BIN = Path(sys.executable).parent


def completed(*words: str) -> list[str]:
    """What is offered for the last of `words`, as begun."""
    asked = ShellComplete(cli, {}, "flashsale", "_FLASHSALE_COMPLETE")
    return [item.value for item in asked.get_completions(list(words[:-1]), words[-1])]


def test_every_command_is_offered_in_the_order_of_the_help() -> None:
    assert completed("") == list(COMMANDS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("mig",), ["migrate"]),
        (("nothing",), []),
        (("--ver",), ["--version"]),
        (("dead-letters", "e"), ["export"]),
        (("dead-letters", "retry", "--dry"), ["--dry-run"]),
        (("dead-letters", "list", "--reason", "un"), ["unknown_sale", "unclassified"]),
        (("completion", "z"), ["zsh"]),
    ],
)
def test_what_was_begun_is_completed(words: tuple[str, ...], expected: list[str]) -> None:
    assert completed(*words) == expected


def test_completing_a_command_loads_none() -> None:
    """Each press of the key starts Python anew; loading all commands takes ten times as long."""
    script = (
        "import sys; from click.shell_completion import ShellComplete;"
        "from flashsale.cli import cli;"
        "ShellComplete(cli, {}, 'flashsale', 'X').get_completions([], '');"
        "print({'peewee', 'pika', 'rich'} & set(sys.modules))"
    )

    assert subprocess.check_output([sys.executable, "-c", script], timeout=60) == b"set()\n"


def test_bash_completes_by_the_script() -> None:
    script = (
        'eval "$(flashsale completion bash)"; COMP_WORDS=(flashsale dead-letters gr); COMP_CWORD=2;'
        ' _flashsale_completion flashsale; echo "${COMPREPLY[@]}"'
    )
    env = {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True
    )

    assert (done.stdout, done.stderr) == ("groups\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_this_shell_and_this_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.run(cli, ["completion", shell]) == exit_codes.OK

    script, error = capsys.readouterr()
    assert f"_FLASHSALE_COMPLETE={shell}_complete" in script
    assert error == ""


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.run(cli, ["completion", "tcsh"]) == exit_codes.USAGE
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err
