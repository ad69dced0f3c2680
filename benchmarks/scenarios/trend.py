"""Whether what a process holds grows, from its footprints: the verdict of the soak."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.scenarios.footprint import Footprint

_MEMORY = ("rss_mb", "pss_mb")
_COUNTS = ("threads", "files", "sockets")
#: Memory that grows by no more than this share from one third to the next is flat.
MEMORY_TOLERANCE = 0.02


class Trend(NamedTuple):
    """How one thing that a process holds went on after the first third, when it was warm."""

    pid: int
    what: str
    #: Medians for memory; else the most.
    middle: float
    last: float
    #: By the straight line through both thirds.
    per_hour: float

    @property
    def is_flat(self) -> bool:
        tolerance = MEMORY_TOLERANCE if self.what in _MEMORY else 0
        return self.last <= self.middle * (1 + tolerance)


def trends(taken: Sequence[Footprint]) -> list[Trend]:
    """The trend of each thing of each process that ran throughout.

    A process that came or went has no trend: a worker that replaces its processes is not flat.

    Raises:
        ValueError: so it was, or there are too few footprints to tell.
    """
    pids = sorted({each.pid for each in taken})
    rounds = {pid: [each for each in taken if each.pid == pid] for pid in pids}
    lengths = [len(of_one) for of_one in rounds.values()]
    if not lengths or min(lengths) < 6 or max(lengths) - min(lengths) > 1:
        raise ValueError(f"the processes did not all run throughout: {lengths} footprints")
    return [_trend(rounds[pid], pid, what) for pid in pids for what in (*_MEMORY, *_COUNTS)]


def _trend(taken: Sequence[Footprint], pid: int, what: str) -> Trend:
    third = len(taken) // 3
    warm = [(each.at / 3_600, float(getattr(each, what))) for each in taken[third:]]
    values = [value for _, value in warm]
    summary = statistics.median if what in _MEMORY else max
    slope, _ = statistics.linear_regression(*zip(*warm, strict=True))
    return Trend(
        pid=pid,
        what=what,
        middle=summary(values[:third]),
        last=summary(values[third:]),
        per_hour=round(slope, 3),
    )
