"""The pages of the documentation lead to each other, and to commands that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flashsale.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[str]:
    """What the page tells to type, in its blocks and within its sentences."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^ *\$ (?:[A-Z_]+=\S+ )?(flashsale .+)$", text, re.MULTILINE)
    yield from re.findall(r"`(flashsale [a-z][^`]*)`", text)


def problem(line: str) -> str | None:
    """Why click would not know this command, or None."""
    command: click.Command = cli
    context = click.Context(command)
    for word in shlex.split(line.partition(" | ")[0], comments=True)[1:]:
        if word in {">", "2>", "&"}:
            break
        if word.startswith("--"):
            known = {name for each in command.get_params(context) for name in each.opts}
            if word.partition("=")[0] not in known:
                return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            if found is None:
                return f"{command.name} has no command {word}"
            command, context = found, click.Context(found, parent=context)
    return None


COMMAND_LINES = sorted({line for page in PAGES for line in commands(page)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_can_be_typed_as_it_stands_there(line: str) -> None:
    assert problem(line) is None


def test_the_index_has_every_page() -> None:
    listed = re.findall(r"^\| \[(\S+)\]\(\1\)", (DOCS / "README.md").read_text(), re.MULTILINE)

    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} == set(listed)


def test_the_tour_has_every_command() -> None:
    tour = "\n".join(commands(DOCS / "tour.md"))
    letters = cli.get_command(click.Context(cli), "dead-letters")
    assert isinstance(letters, click.Group)
    names = [*COMMANDS, *(f"dead-letters {name}" for name in letters.commands)]

    assert [name for name in names if f"flashsale {name}" not in tour] == []
