"""The runbook: each alert leads to its symptom, and what it speaks of is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flashsale.settings import TUNABLES
from tests.unit.test_docs import anchors

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "operations.md"
PAGE = PATH.read_text(encoding="utf-8")
RULES = (ROOT / "docker" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
RUNBOOKS = re.findall(r"alert: (\w+)\n(?:(?! +- alert).*\n)*? +runbook_url: (\S+)", RULES)
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
SYMPTOMS = [text for text in SECTIONS.values() if "**You see**" in text]


def section_of(anchor: str) -> str:
    (text,) = [
        text for title, text in SECTIONS.items() if title.lower().replace(" ", "-") == anchor
    ]
    return text


def test_every_alert_has_a_runbook() -> None:
    assert [alert for alert, _ in RUNBOOKS] == re.findall(r"alert: (\w+)", RULES)


@pytest.mark.parametrize(("alert", "link"), RUNBOOKS)
def test_an_alert_leads_to_the_symptom_that_names_it(alert: str, link: str) -> None:
    page, _, anchor = link.partition("#")

    assert ROOT / page == PATH
    assert f"`{alert}`" in section_of(anchor)


def test_every_section_can_be_reached_from_the_table_of_symptoms() -> None:
    table = set(re.findall(r"\]\(#([^)]+)\)", PAGE.partition("\n## ")[0]))

    assert anchors(PATH) - table == {"operations-a-runbook-by-symptom", "the-first-minute"}


@pytest.mark.parametrize("text", SYMPTOMS)
def test_a_symptom_has_its_meaning_what_to_do_and_what_not(text: str) -> None:
    bullets = re.findall(r"^- \*\*(You see|It means|Do not|Do)\*\*", text, re.MULTILINE)

    assert bullets == ["You see", "It means", "Do", "Do not"]


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        (r"`([a-z_]+\.[a-z_]+)`", "docs/logs.md"),
        (r"`(flashsale_\w+)", "docs/metrics.md"),
        (r"`(Flashsale\w+)`", "docker/prometheus/rules.yml"),
    ],
)
def test_what_it_names_is_called_so(pattern: str, where: str) -> None:
    named = set(re.findall(pattern, PAGE)) - {"pg_hba.conf"}
    known = (ROOT / where).read_text(encoding="utf-8")

    assert named
    assert [name for name in sorted(named) if name not in known] == []


def test_each_setting_it_names_is_read() -> None:
    assert set(re.findall(r"FLASHSALE_[A-Z_]+", PAGE)) <= set(TUNABLES)


def test_each_cause_in_its_table_is_one_that_is_logged() -> None:
    """They are told by their beginnings."""
    causes = re.findall(r"^  \| (the [^|`]+|no conn[^|]+|tables [^|]+) \|", PAGE, re.MULTILINE)
    code = re.sub(r"\s+", " ", (ROOT / "flashsale" / "faults.py").read_text(encoding="utf-8"))

    assert len(causes) > 4
    assert [cause for cause in causes if cause not in code] == []
