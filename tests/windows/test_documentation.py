"""The table of the windows names each of them once, and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[2] / "docs" / "delivery-guarantees.md"
ROW = re.compile(r"^\| (W\d+b?) .*\| `(w\d+b?)`( and stock,)? in (test_\w+\.py) \|$", re.MULTILINE)
ROWS = ROW.findall(TABLE.read_text())


def test_every_window_has_its_row() -> None:
    windows = [f"W{number}" for number in range(1, 32)]
    windows.insert(1, "W1b")

    assert [window for window, *_ in ROWS] == windows


@pytest.mark.parametrize(("window", "key", "and_stock", "file"), ROWS, ids=[row[0] for row in ROWS])
def test_the_tests_of_a_window_are_where_its_row_says(
    window: str, key: str, and_stock: str, file: str
) -> None:
    source = Path(__file__).with_name(file).read_text()

    named = re.findall(rf"def test_(?:\w+_)?{key}_(\w+)|id=\"{key}-", source)

    assert int(window[1:].rstrip("b")) == int(key[1:].rstrip("b"))
    assert named
    assert bool(and_stock) == any(name.startswith("stock_") for name in named)
