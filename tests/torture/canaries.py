"""Words that may never be seen, and all the places where a round looks for them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import process_tree
from tests.torture.events import CANARY_USER
from tests.torture.stage import CANARY_PASSWORD

if TYPE_CHECKING:
    from tests.torture.harness import Round

#: The first stands in both URLs, the second in every event.
CANARIES = (CANARY_PASSWORD, CANARY_USER)


def search_titles(round_: Round) -> None:
    """Look at what ``ps`` shows to every user of the machine: command lines and titles."""
    for master in round_.workers.master_pids():
        for pid in process_tree(master):
            places = [Path(f"/proc/{pid}/cmdline"), *Path(f"/proc/{pid}/task").glob("*/comm")]
            for place in places:
                with suppress(OSError):  # it ended just now
                    _search(round_, place.read_text(errors="replace"), str(place))


def search_output(round_: Round) -> None:
    """Look at all that the workers have printed, and at the headers of dead letters."""
    for fleet in round_.fleets:
        if fleet.log.is_file():
            _search(round_, fleet.log.read_text(errors="replace"), "a worker's log")
    for _, headers in round_.letters:
        _search(round_, repr(headers), "the headers of a dead letter")


def _search(round_: Round, text: str, where: str) -> None:
    for number, canary in enumerate(CANARIES):
        # Its number, not the canary: what is printed of this must not hold it either.
        round_.expect(canary not in text, f"canary {number} stands in {where}")
