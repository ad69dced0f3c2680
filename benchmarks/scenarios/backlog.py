"""What waited, and until when, from the schedule of the load and the times of the commits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.scenarios.load import Offered

#: What waits is no backlog any more when it is less than the purchases of this time.
CAUGHT_UP_SECONDS = 0.5


class Recovery(NamedTuple):
    """How a worker came back; seconds are counted from when the database accepted connections."""

    #: Purchases that were due and had no order yet when the database was back.
    backlog: int
    first_commit_seconds: float
    caught_up_seconds: float
    #: In the time from the first commit until all had caught up.
    orders_per_second: float


def recovery(offered: Offered, commits: Sequence[float], back_at: float) -> Recovery:
    """The recovery after an outage that ended at `back_at`.

    `commits` are the times of all commits, ascending; as many as were offered.
    """
    first = bisect_left(commits, back_at)

    def waiting(moment: float, committed: int) -> int:
        return min(offered.events, int((moment - offered.started_at) * offered.rate)) - committed

    caught_up = next(
        at
        for at in range(first, len(commits))
        if waiting(commits[at], at + 1) <= offered.rate * CAUGHT_UP_SECONDS
    )
    seconds = commits[caught_up] - commits[first]
    return Recovery(
        backlog=waiting(back_at, first),
        first_commit_seconds=round(commits[first] - back_at, 2),
        caught_up_seconds=round(commits[caught_up] - back_at, 2),
        orders_per_second=round((caught_up - first) / seconds if seconds else 0.0),
    )
