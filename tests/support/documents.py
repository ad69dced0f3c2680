"""Commands and statements of the documentation, for tests to carry them out."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def blocks(document: str, language: str, heading: str) -> list[str]:
    """The fenced blocks in this language below a heading, up to the next one."""
    text = (_ROOT / document).read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n{heading}\n")
    section = re.split(r"\n##+ ", section)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
