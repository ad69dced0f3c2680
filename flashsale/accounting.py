"""What was published against what was found: where every event must show up exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Published:
    """Events by what must become of them; dead letters by reason."""

    orders: int = 0
    duplicates: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        return self.orders + self.duplicates + self.dead_letters.total()


@dataclass
class Found:
    """What tables, dead letters and queue held afterwards.

    A row or letter is stray where nothing published explains it, or where it is not the first.
    """

    orders: int = 0
    stray_orders: int = 0
    audit_rows: int = 0
    stray_audit_rows: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    stray_dead_letters: int = 0
    #: Events acknowledged as done: each an order, or a duplicate of one.
    settled: int = 0
    still_queued: int = 0


@dataclass(frozen=True)
class Line:
    """One line of the account. Names are stable, for programs.

    A line that is short by no more than what is still queued is open, not wrong.
    """

    name: str
    expected: int
    found: int
    is_open: bool = False

    @property
    def is_right(self) -> bool:
        return self.expected == self.found


def account(published: Published, found: Found) -> tuple[Line, ...]:
    """The account, line by line. All is well if every line is right."""
    # A duplicate leaves no trace of its own. An order leaves two, so that one of them lost does
    # not pass for one more duplicate.
    orders = found.orders + found.stray_orders
    duplicates = found.settled - max(orders, found.audit_rows + found.stray_audit_rows)
    letters = found.dead_letters.total() + found.stray_dead_letters
    unaccounted_for = published.events - orders - duplicates - letters - found.still_queued

    def line(name: str, expected: int, count: int) -> Line:
        return Line(name, expected, count, is_open=0 < expected - count <= found.still_queued)

    return (
        line("orders", published.orders, found.orders),
        line("audit_rows", published.orders, found.audit_rows),
        line("duplicates", published.duplicates, duplicates),
        *(
            line(
                f"dead_letters.{reason}",
                published.dead_letters[reason],
                found.dead_letters[reason],
            )
            for reason in sorted(published.dead_letters | found.dead_letters)
        ),
        line("stray_orders", 0, found.stray_orders),
        line("stray_audit_rows", 0, found.stray_audit_rows),
        line("stray_dead_letters", 0, found.stray_dead_letters),
        Line("still_queued", 0, found.still_queued, is_open=found.still_queued > 0),
        line("unaccounted_for", 0, unaccounted_for),
    )


class Roll:
    """The numbers below `size`, each of which may be ticked once. A byte each."""

    def __init__(self, size: int) -> None:
        self._ticked = bytearray(size)

    def tick(self, number: int) -> bool:
        """Tick `number`; False where it is not on the roll, or is ticked already."""
        if not 0 <= number < len(self._ticked) or self._ticked[number]:
            return False
        self._ticked[number] = True
        return True


def call_roll(numbers: Iterable[int], size: int) -> tuple[int, int]:
    """How many of `numbers` tick one off a :class:`Roll` of `size`, and how many are stray."""
    roll = Roll(size)
    ticked = stray = 0
    for number in numbers:
        if roll.tick(number):
            ticked += 1
        else:
            stray += 1
    return ticked, stray
