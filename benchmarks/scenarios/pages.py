"""Tables that commands make in the pages of docs/, between two marks, from files of results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_MADE = r"(?<=<!-- made by {} -->\n).*?(?=<!-- end -->)"


def filled(page: str, command: str, lines: Iterable[str]) -> str:
    """The page with `lines` between ``<!-- made by command -->`` and the next ``<!-- end -->``.

    Raises:
        ValueError: the page has no such place.
    """
    made = re.compile(_MADE.format(re.escape(command)), re.S)
    if not made.search(page):
        raise ValueError(f"the page has no place for what `{command}` makes")
    text = "\n".join(lines)
    # Once: after an empty place, a second match would reach to the end of the next.
    return made.sub(lambda _: f"\n{text}\n", page, count=1)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table in Markdown, line by line."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
