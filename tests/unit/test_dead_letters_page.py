"""The page on dead letters knows each reason and each header, and no others."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from flashsale.batching import Delivery, Letter, Rejection
from flashsale.batching.ledger import Ledger
from flashsale.brokers.dead_letter_writer import letter_headers
from flashsale.purchases import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "dead-letters.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_each_reason_has_its_meaning_and_its_remedy() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section("Reasons"), re.MULTILINE)

    assert [reason for reason, _, _ in rows] == [reason.value for reason in Reason]


def test_each_header_is_there() -> None:
    letter = Letter(Ledger(), Delivery(1, b""), Rejection("constraint", "23514", "why"), 1, 0.0)
    written = letter_headers(letter, datetime.now(UTC))

    first_cells = re.findall(r"^\| (`.+?`) \|", section("Headers"), re.MULTILINE)
    assert set(re.findall(r"`(.+?)`", " ".join(first_cells))) == set(written)
