"""What a rate asks for, from the costs of one order; and a sale played on shards, without servers.

A cell is one shard whole: a queue or some, workers, and a database of its own. Cells share nothing,
so all that is reckoned here is how many there must be, and what an uneven share does to one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

#: The share of its cores that a server is planned to use, so that a burst finds room.
BUSY = 0.6
#: Copies of each message in a quorum queue; each is reckoned to cost what one costs.
REPLICAS = 3
_TICK_SECONDS = 0.1
# Less of an order than this is none: sums of fractions are not exact.
_A_PART = 1e-3
_GROUPS = ("worker", "postgresql", "rabbitmq")


@dataclass(frozen=True)
class Costs:
    """What one order costs, as measured.

    Attributes:
        worker, postgresql, rabbitmq: Microseconds of CPU time.
        cores: Of the machine that all of it ran on.
        orders_per_second: What that machine did, through one queue and one database.
        wal_bytes, stored_bytes: What PostgreSQL writes to its log, and keeps in tables and indexes.
        event_bytes: The event's body.
    """

    worker: float
    postgresql: float
    rabbitmq: float
    cores: int
    orders_per_second: float
    wal_bytes: float
    stored_bytes: float
    event_bytes: float

    @classmethod
    def of(cls, drain: dict[str, Any], scaling: dict[str, Any]) -> Costs:
        """From the documents that ``python -m benchmarks`` and ``benchmarks.scaling`` write.

        Raises:
            ValueError: flashsale has no run that counts in the former.
        """
        for each in drain["contestants"]:
            if each["name"] == "flashsale" and "orders_per_second" in each:
                cpu = each["cpu_seconds_per_1000_orders"]
                return cls(
                    **{group: 1_000 * cpu[group] for group in _GROUPS},
                    cores=drain["machine"]["cpus"],
                    orders_per_second=each["orders_per_second"]["median"],
                    **scaling["bytes_per_order"],
                )
        raise ValueError("flashsale has no run that counts in drain.json")

    def cores_for(self, rate: float) -> dict[str, float]:
        """Cores that are busy all the time at so many orders a second."""
        return {group: rate * getattr(self, group) / 1e6 for group in _GROUPS}

    def cell_of(self, cores: int) -> float:
        """Orders a second of a cell whose PostgreSQL has so many cores of its own, at BUSY."""
        return BUSY * cores * 1e6 / self.postgresql

    def queues_for(self, rate: float) -> int:
        """Queues that are enough: no more on each than one was seen to carry, at BUSY."""
        return math.ceil(rate / (BUSY * self.orders_per_second))


class Story(NamedTuple):
    """How a sale's events are spread over the cells, and what happens meanwhile."""

    title: str
    #: Each cell's share of all events, in any unit.
    weights: Sequence[float]
    #: Seconds that the first cell's database is away for, from a third of the sale on.
    outage_seconds: float = 0.0


class Played(NamedTuple):
    """What became of a sale. Waits are from the event to its order, in seconds."""

    #: What came to the busiest cell, of what it can do.
    busiest: float
    median_wait: float
    p99_wait: float
    longest_wait: float


def stories(cells: int, seed: int) -> list[Story]:
    """The sales that the page tells of."""
    choice = random.Random(seed)
    by_sale = [0.0] * cells
    for rank in range(1, 1_001):
        by_sale[choice.randrange(cells)] += 1 / rank
    even = [1.0] * cells
    return [
        Story("by buyer, evenly", even),
        Story("by buyer, each cell's share a fifth more or less", [
            choice.uniform(0.8, 1.2) for _ in even
        ]),
        Story("by buyer, and one cell's database is away for 10 s", even, 10.0),
        Story("by sale, 1,000 sales, the nth with 1/n of the first one's buyers", by_sale),
        Story("by sale, and there is one", [1.0, *[0.0] * (cells - 1)]),
    ]  # fmt: skip


def play(story: Story, rate: float, seconds: float, capacity: float, seed: int) -> Played:
    """Let `rate` events a second come for so long, to cells that each do `capacity` a second.

    Each cell works off what came first, first. The time of a batch is not reckoned: it is less
    than a tick of the reckoning.
    """
    choice = random.Random(seed)
    ticks = round(seconds / _TICK_SECONDS)
    whole = math.fsum(story.weights)  # the same on each Python, which sum is not
    away = range(ticks // 3, ticks // 3 + round(story.outage_seconds / _TICK_SECONDS))
    waits: list[tuple[float, float]] = []
    for number, weight in enumerate(story.weights):
        mean = rate * _TICK_SECONDS * weight / whole
        arrivals = [max(0.0, choice.gauss(mean, math.sqrt(mean))) for _ in range(ticks)]
        waits += _waits(arrivals, capacity * _TICK_SECONDS, away if number == 0 else range(0))
    waits.sort()
    return Played(
        max(story.weights) / whole * rate / capacity,
        _quantile(waits, 0.5),
        _quantile(waits, 0.99),
        waits[-1][0],
    )


def _waits(arrivals: Sequence[float], per_tick: float, away: range) -> list[tuple[float, float]]:
    """For what came in each tick: how long until the last of it was done, and how much it was."""
    come = list(accumulate(arrivals))
    found = []
    done, now = 0.0, -1
    for tick, amount in enumerate(arrivals):
        while now < tick or done < come[tick] - _A_PART:
            now += 1
            if now not in away:
                done = min(come[min(now, len(come) - 1)], done + per_tick)
        found.append(((now - tick) * _TICK_SECONDS, amount))
    return found


def _quantile(waits: Sequence[tuple[float, float]], share: float) -> float:
    """The wait that this share of all events had at most; `waits` ascend."""
    left = share * math.fsum(amount for _, amount in waits)
    for wait, amount in waits:
        left -= amount
        if left <= 0:
            return wait
    return waits[-1][0]
