"""The README's tables and commands are true of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flashsale.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_contract_stands_there_as_on_the_page_of_settings() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[A-Z_]+` \| .+$", README, re.MULTILINE)

    assert len(rows) == 5
    assert [row for row in rows if row.replace("](docs/", "](") not in page] == []


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
