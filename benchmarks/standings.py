"""From single runs to a standing: medians, ranges, and ratios within the same round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .contestants import Contestant
from .race import Run

GROUPS = ("worker", "postgresql", "rabbitmq")


class Spread(NamedTuple):
    """The median of some figures, and the least and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: list[float]) -> Spread:
        return cls(statistics.median(figures), min(figures), max(figures))

    def rounded(self, digits: int) -> dict[str, float]:
        return {name: round(figure, digits) for name, figure in self._asdict().items()}


@dataclass
class Standing:
    """One contestant: its runs by round, and why those rounds that are missing do not count."""

    contestant: Contestant
    runs: dict[int, Run] = field(default_factory=dict)
    refusals: dict[int, str] = field(default_factory=dict)

    @property
    def orders_per_second(self) -> Spread:
        return Spread.of([run.orders_per_second for run in self.runs.values()])

    @property
    def peak_process_bytes(self) -> int:
        return max(run.peak_process_bytes for run in self.runs.values())

    @property
    def peak_total_bytes(self) -> int:
        return max(run.peak_total_bytes for run in self.runs.values())

    def cpu_microseconds(self, group: str) -> float:
        """The median of an order's share of CPU time in that group of processes."""
        return statistics.median(run.cpu_microseconds[group] for run in self.runs.values())

    def ratio_to(self, other: Standing | None) -> Spread | None:
        """How many times as fast as another: by round, since the machine drifts between rounds.

        None where they have no round in common.
        """
        rounds = self.runs.keys() & other.runs.keys() if other else ()
        if not rounds:
            return None
        return Spread.of(
            [self.runs[n].orders_per_second / other.runs[n].orders_per_second for n in rounds]
        )

    def as_json(
        self, standings: Mapping[str, Standing], bases: Mapping[str, str]
    ) -> dict[str, Any]:
        """What the JSON file has of it; `bases` are the names of ratios and whom they are to."""
        document: dict[str, Any] = {
            "name": self.contestant.name,
            "title": self.contestant.title,
            "requirements": self.contestant.requirements(),
        }
        if self.runs:
            ratios = {key: self.ratio_to(standings.get(base)) for key, base in bases.items()}
            document |= {
                "orders_per_second": self.orders_per_second.rounded(1),
                **{key: ratio and ratio.rounded(3) for key, ratio in ratios.items()},
                "cpu_seconds_per_1000_orders": {
                    group: round(self.cpu_microseconds(group) / 1_000, 5) for group in GROUPS
                },
                "peak_process_megabytes": round(self.peak_process_bytes / 1e6, 1),
                "peak_total_megabytes": round(self.peak_total_bytes / 1e6, 1),
            }
        runs = [{"round": number, **vars(run)} for number, run in sorted(self.runs.items())]
        refusals = [{"round": number, "reason": why} for number, why in self.refusals.items()]
        return document | {"runs": runs, "refusals": refusals}


def ranking(standings: Mapping[str, Standing]) -> list[Standing]:
    """Those with a run that counts, the fastest first."""
    measured = [standing for standing in standings.values() if standing.runs]
    return sorted(measured, key=lambda each: each.orders_per_second.median, reverse=True)
