"""The README's tables and commands are true of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flashsale.cli import cli
from flashsale.purchases import Reason
from flashsale.secret_files import SECRET_FILES
from flashsale.settings import TUNABLES, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE))


def _shown(default: object) -> str:
    """A default as the README has it, whoever runs this and wherever temporary files are."""
    return "/tmp/flashsale-<uid>" if default == Settings.state_folder else str(default)  # noqa: S108


@pytest.mark.parametrize("name", TUNABLES)
def test_each_tunable_stands_there_with_its_default_and_meaning(name: str) -> None:
    setting = TUNABLES[name]

    assert f"| `{name}` | `{_shown(setting.default)}` | {setting.metadata['meaning']} |" in README


def test_no_variable_stands_there_that_is_not_read() -> None:
    contract = {
        "DATABASE_URL": "sqlite:///flashsale.db",
        "RABBITMQ_URL": Settings.broker_urls[0],
        "PURCHASE_QUEUE": Settings.purchase_queues[0],
        "DEAD_LETTER_QUEUE": "<PURCHASE_QUEUE>.XQ",
        "PURCHASE_QUEUE_TYPE": Settings.purchase_queue_type,
    }

    assert contract | {name: _shown(tunable.default) for name, tunable in TUNABLES.items()} == ROWS


def test_each_variable_that_names_a_file_stands_there() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+_FILE)` \| \| (.+) \|$", README, re.MULTILINE))

    assert rows == SECRET_FILES


def test_each_log_event_of_the_table_is_logged_somewhere() -> None:
    """An operator who searches for one finds it spelt so."""
    code = "".join(path.read_text() for path in (ROOT / "flashsale").rglob("*.py"))
    operating = README.split("## Operate")[1].split("## Develop")[0]
    events = re.findall(
        r"`((?:work|worker|broker|topology|events|dead_letters|audit|suspects)\.\w+)`", operating
    )

    assert events
    assert [event for event in events if f'"{event}"' not in code] == []


def test_each_reason_stands_there() -> None:
    named = set(
        re.findall(r"`(\w+)`", README.split("Reasons of dead letters:")[1].split("\n\n")[0])
    )

    assert named == {reason.value for reason in Reason}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^\$ flashsale (\w+)", README, re.M))))
def test_each_command_it_shows_exists_and_has_help(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])

    assert result.exit_code == 0
    assert f"flashsale {command}" in result.output


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README + CONTRIBUTING)))
)
def test_each_make_target_it_names_exists(target: str) -> None:
    """And each that CONTRIBUTING.md names."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
