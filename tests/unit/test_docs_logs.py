"""The page on log lines has each event that is logged, its level, and its next step."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flashsale.hints import HINTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
ROWS = {
    event: (level, hint)
    for event, level, hint in re.findall(
        r"^\| `([a-z_.]+)` \| ([^|]+) \| [^|]+ \|(?: ([^|]+) )?[ |]*\|$", PAGE, re.MULTILINE
    )
}
LEVELS = ("debug", "info", "warning", "error", "critical")
ASKING = ("warning", "error", "critical")


def logged() -> set[tuple[str, str]]:
    """Event and level of each call of a logger in the package."""
    found = set()
    for path in (ROOT / "flashsale").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            is_logger = ast.unparse(node.func.value) in {"log", "logging.getLogger(__name__)"}
            if is_logger and node.func.attr in {*LEVELS, "exception"}:
                (event,) = [each for each in node.args if isinstance(each, ast.Constant)]
                found.add((str(event.value), node.func.attr))
    return found


EVENTS = sorted(logged())


def test_the_events_of_the_page_are_those_that_are_logged() -> None:
    assert len(EVENTS) > len(HINTS)
    assert set(ROWS) == {event for event, _ in EVENTS}


@pytest.mark.parametrize(("event", "level"), EVENTS)
def test_an_event_has_a_stable_name_and_its_level_on_the_page(event: str, level: str) -> None:
    assert re.fullmatch(r"[a-z_]+\.[a-z_]+", event)
    assert level in ROWS[event][0]


@pytest.mark.parametrize(("event", "level"), EVENTS)
def test_an_event_that_asks_for_something_has_its_next_step_in_line_and_page(
    event: str, level: str
) -> None:
    assert level not in ASKING or event in HINTS
    assert ROWS[event][1] == HINTS.get(event, "")


def test_no_hint_is_for_a_line_that_asks_for_nothing() -> None:
    assert set(HINTS) == {event for event, level in EVENTS if level in ASKING}
