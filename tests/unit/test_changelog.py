"""The changelog has the form that it says it has, and goes with the version."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import flashsale

PAGE = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
HEADINGS = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
RELEASES = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\S+)", each) for each in HEADINGS[1:]]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_it_begins_as_keep_a_changelog_asks_and_names_both_rules() -> None:
    assert PAGE.startswith("# Changelog\n")
    assert "https://keepachangelog.com/en/1.1.0/" in PAGE
    assert "https://semver.org/spec/v2.0.0.html" in PAGE
    assert HEADINGS[0] == "[Unreleased]"


def test_each_release_has_its_number_and_its_day_the_newest_first() -> None:
    assert None not in RELEASES
    told = [(numbers(each[1]), date.fromisoformat(each[2])) for each in RELEASES if each]

    assert told == sorted(told, reverse=True)
    assert all(number <= numbers(flashsale.__version__) for number, _ in told)


def test_each_change_is_an_entry_of_a_kind() -> None:
    for section in re.split(r"^## .+$", PAGE, flags=re.MULTILINE)[1:]:
        before, *parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)
        kinds = parts[::2]
        assert before.strip() == ""
        assert [kind for kind in KINDS if kind in kinds] == kinds
        for entries in parts[1::2]:
            loose, *subjects = re.split(r"^#### .+$", entries.strip(), flags=re.MULTILINE)
            assert not (subjects and loose), "where there are subjects, each entry has one"
            for of_subject in subjects or [loose]:
                lines = of_subject.strip().splitlines()
                assert lines
                assert all(line.startswith(("- ", "  ")) for line in lines)
                assert lines[0].startswith("- ")
