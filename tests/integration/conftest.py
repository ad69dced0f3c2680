"""Databases for the tests of what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import Store, open_store


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Store]:
    with open_store(postgres_url, migrated=True) as store:
        yield store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each test that asks for it runs on both databases."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_store")
    else:
        with open_store(f"sqlite:///{tmp_path}/flashsale.db") as on_sqlite:
            yield on_sqlite
