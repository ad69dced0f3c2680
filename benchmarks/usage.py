"""What processes use while something runs: CPU time by group, and the worker's memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.processes import cpu_seconds, process_tree

_INTERVAL_SECONDS = 0.2
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class UsageSampler:
    """Looks at groups of processes five times a second, from a thread of its own.

    Args:
        pids: The head of each group by the group's name; those below it belong to it.
        memory_of: The group whose memory is watched.

    Attributes:
        peak_process_bytes: The most resident memory that one process of that group had.
        peak_total_bytes: The most that all of them had at once; pages they share count for each.
    """

    def __init__(self, pids: Mapping[str, int], memory_of: str) -> None:
        self.peak_process_bytes = 0
        self.peak_total_bytes = 0
        self._pids = dict(pids)
        self._memory_of = memory_of
        self._times: list[float] = []
        self._cpu: dict[str, list[float]] = {name: [] for name in pids}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def cpu_between(self, start: float, end: float) -> dict[str, float]:
        """Seconds of CPU that each group used between two moments of `time.time`.

        What lies between two looks is interpolated.
        """
        return {
            name: interpolate(self._times, cpu, end) - interpolate(self._times, cpu, start)
            for name, cpu in self._cpu.items()
        }

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        self._times.append(time.time())
        for name, pid in self._pids.items():
            self._cpu[name].append(cpu_seconds(pid))
        resident = [resident_bytes(pid) for pid in process_tree(self._pids[self._memory_of])]
        self.peak_process_bytes = max(self.peak_process_bytes, *resident)
        self.peak_total_bytes = max(self.peak_total_bytes, sum(resident))


def interpolate(times: Sequence[float], values: Sequence[float], moment: float) -> float:
    """The value at a moment, on straight lines between those at `times`, which ascend.

    Before the first and after the last of them nothing changes.
    """
    after = bisect_left(times, moment)
    if after in (0, len(times)):
        return values[min(after, len(times) - 1)]
    share = (moment - times[after - 1]) / (times[after] - times[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def resident_bytes(pid: int) -> int:
    """A process's resident memory; 0 where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0
