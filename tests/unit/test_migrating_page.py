"""The page on the takeover: its environment is one that the worker starts with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from flashsale.errors import SettingsError
from flashsale.settings import Settings
from flashsale.urls import parse_database_url
from tests.support.api import API_QUEUES
from tests.support.documents import blocks

PAGE = Path(__file__).parents[2] / "docs" / "migrating-from-nestjs.md"
(BLOCK,) = blocks("docs/migrating-from-nestjs.md", "sh", "## The environment")
(ROW,) = re.findall(r"^\| `DATABASE_URL` .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
REFUSED = re.findall(r"`(\w+)`", ROW.partition("Prisma's")[2].partition("refused")[0])


def environment() -> dict[str, str]:
    """The block as a shell, and what reads such files, takes it."""
    lines = shlex.split(BLOCK, comments=True)
    return dict(line.split("=", 1) for line in lines)


def test_the_old_workers_environment_and_two_names_are_enough() -> None:
    settings = Settings.from_env(environment())

    assert (*settings.purchase_queues, settings.dead_letter_queue) == API_QUEUES
    assert (settings.database.pool_size, settings.database.pool_timeout_seconds) == (30, 20)


@pytest.mark.parametrize("key", REFUSED)
def test_what_it_says_is_refused_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        parse_database_url(f"postgresql://user:password@host/name?{key}=1")


def test_a_url_with_its_quotes_is_refused() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        Settings.from_env({"DATABASE_URL": '"postgresql://user:password@host/name"'})
