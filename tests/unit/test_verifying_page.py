"""docs/verifying.md says what the command does."""

from __future__ import annotations

import re
from pathlib import Path

from flashsale.verification import CHECKS, GRACE

PAGE = (Path(__file__).parents[2] / "docs" / "verifying.md").read_text()


def test_the_page_lists_the_checks_in_their_order() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == [check.name for check in CHECKS]
    assert f"`--grace` ({GRACE.seconds} s)" in PAGE
