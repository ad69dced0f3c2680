"""The figures of docs/performance.md are those that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import benchmarks.performance
from benchmarks.performance import PAGE, RESULTS, made, main
from benchmarks.scenarios.pages import filled, table


def test_the_tables_of_the_page_are_those_of_the_measurements() -> None:
    """`python -m benchmarks.performance` makes them anew."""
    page = PAGE.read_text(encoding="utf-8")

    assert made(page, RESULTS) == page


def test_without_a_measurement_the_command_says_which_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("latency", "outage", "decay", "sweep", "collector", "soak"):
        (tmp_path / f"{name}.json").write_text("{}")
    monkeypatch.setattr(benchmarks.performance, "RESULTS", tmp_path)

    result = CliRunner().invoke(main)

    assert result.exit_code == 3
    assert "not measured yet: drain;" in result.output


def test_only_what_a_command_makes_is_replaced() -> None:
    page = "a\n<!-- made by one -->\nold\n<!-- end -->\nb\n<!-- made by two -->\n<!-- end -->\n"

    assert filled(page, "one", table(("x", "y"), [(1, 2)])) == (
        "a\n<!-- made by one -->\n\n| x | y |\n|---|---|\n| 1 | 2 |\n<!-- end -->\nb\n"
        "<!-- made by two -->\n<!-- end -->\n"
    )
    assert filled(page, "two", ["new"]).endswith("<!-- made by two -->\n\nnew\n<!-- end -->\n")
    empty = page.replace("old\n", "")
    assert filled(empty, "one", ["new"]) == empty.replace("one -->\n", "one -->\n\nnew\n")
    with pytest.raises(ValueError, match="three"):
        filled(page, "three", [])
