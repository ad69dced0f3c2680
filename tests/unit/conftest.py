"""What many unit tests store into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A migrated SQLite file of the test's own."""
    with open_store(f"sqlite:///{tmp_path}/flashsale.db") as made:
        yield made
