"""The settings' page is true of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flashsale.secret_files import SECRET_FILES
from flashsale.settings import TUNABLES, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))


def _shown(default: object) -> str:
    """A default as the page has it, whoever runs this and wherever temporary files are."""
    return "/tmp/flashsale-<uid>" if default == Settings.state_folder else str(default)  # noqa: S108


@pytest.mark.parametrize("name", TUNABLES)
def test_each_tunable_stands_there_with_its_default_and_meaning(name: str) -> None:
    setting = TUNABLES[name]

    assert f"| `{name}` | `{_shown(setting.default)}` | {setting.metadata['meaning']} |" in PAGE


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
    rows = dict(re.findall(r"^\| `([A-Z_]+_FILE)` \| \| (.+) \|$", PAGE, re.MULTILINE))

    assert rows == SECRET_FILES
