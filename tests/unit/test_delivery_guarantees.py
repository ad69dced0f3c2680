"""The page of guarantees names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.torture import scenarios  # noqa: F401  # enters all scenarios
from tests.torture.scenario import SCENARIOS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "delivery-guarantees.md").read_text(encoding="utf-8")
TORTURED = {scenario.name for scenario in SCENARIOS}
WINDOWS = "".join(path.read_text() for path in (ROOT / "tests" / "windows").glob("test_*.py"))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))))
def test_each_file_it_names_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bF\d+(?:\.[a-z-]+)*", PAGE))))
def test_each_scenario_it_names_is_there(name: str) -> None:
    """`F3.stop` stands for all whose names begin so."""
    assert any(scenario == name or scenario.startswith(f"{name}.") for scenario in TORTURED)


@pytest.mark.parametrize("window", sorted(set(re.findall(r"`(w\d\d\w?)`", PAGE))))
def test_each_window_has_its_test(window: str) -> None:
    """In the name of a test, or of one of its cases."""
    assert re.search(rf"def test_(?:\w+_)?{window}_|id=\"{window}-", WINDOWS)
