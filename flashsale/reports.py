"""How each worker process is and what it has counted: a file for each, written every second.

The exporter's process makes one page of those of its own worker, and `flashsale health` an answer.
A file costs the work nothing, can be read while its writer hangs, and outlives a kill: what was
counted last is still there. It is not made to outlive the machine.

The files of one worker, which is a Dramatiq master and its processes, share a folder. It is named
after the master so that no other ever has that name: not after a restart that gives the same
process id, nor in another container that shares the volume.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flashsale.private_folders import make_private

#: One that has not been written for so long is of a process that does not run.
STALE_SECONDS = 10.0

_SUBFOLDER = "processes"
_FORGET_SECONDS = 600.0
_START_TIME = 19  # proc_pid_stat(5), counted from after the program's name

State = Literal["running", "draining", "stopped"]


@dataclass(frozen=True)
class Report:
    """One process at one moment."""

    pid: int
    #: ``time.monotonic()``, which all processes of a machine share.
    at: float
    state: State
    #: Why it cannot go on, where it cannot.
    symptom: str | None
    #: From all of its queues.
    is_consuming: bool
    #: A :class:`~flashsale.batching.BreakerState` by its value.
    breaker: str
    #: Numbers by name; those of Tally under its own names.
    counts: Mapping[str, float] = field(default_factory=dict)
    #: Confirmed dead letters by reason.
    reasons: Mapping[str, int] = field(default_factory=dict)
    #: Kind, class of SQLSTATE, count.
    faults: Sequence[tuple[str, str, int]] = ()
    #: Queues that it does not consume, though it does others.
    missing_queues: Sequence[str] = ()
    #: By name, as :meth:`flashsale.metrics.Histogram.report` gives them.
    histograms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.monotonic() - self.at)


def oldest_at_most(ready: int, last_event_at: float | None, now: float) -> float | None:
    """The age in seconds of the oldest of `ready` purchases is not more; None where not known.

    RabbitMQ hands them out in their order, so all that wait were made after the one that a worker
    has had last, at `last_event_at`. Redelivered ones may be older.
    """
    if not ready:
        return 0.0
    return max(0.0, now - last_event_at) if last_event_at else None


def worker_folder(state_folder: str | Path, master: int | None = None) -> Path:
    """The folder of the worker whose master is the process `master`, this one's parent if None."""
    pid = os.getppid() if master is None else master
    return Path(state_folder, _SUBFOLDER, f"{_namespace()}-{pid}-{_started(pid)}")


def running_workers(state_folder: str | Path) -> list[Path]:
    """The folders of the workers whose master runs, on this machine and in this container."""
    found = []
    for folder in sorted(Path(state_folder, _SUBFOLDER).glob(f"{_namespace()}-*-*")):
        _, pid, started = folder.name.split("-")
        if started and started == _started(int(pid)):
            found.append(folder)
    return found


def write_report(folder: Path, report: Report) -> None:
    """Replace the report of its process: a reader finds the old or the new one, whole."""
    # Of its writer's own, who may be another process than the one that it tells of.
    new = folder / f"{report.pid}.{os.getpid()}.new"
    new.write_text(json.dumps(vars(report)), encoding="utf-8")
    new.replace(folder / f"{report.pid}.json")


def read_reports(folder: Path) -> list[Report]:
    """The reports in `folder`, by process id; one that cannot be read is left out."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Report(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda report: report.pid)


def prepare(folder: Path) -> None:
    """Make the folder of this worker, and remove those of workers that are long gone.

    To be called by a process that begins to work. Those of before a reload, which have the same
    master and so the same folder, count as stopped from now on, whatever their end was.

    Raises:
        OSError: reports cannot be written there; the text says what to do.
    """
    for each in (folder.parent.parent, folder.parent, folder):
        make_private(each)
    before = time.time() - _FORGET_SECONDS
    for other in folder.parent.iterdir():
        # Written every second as long as it is in use: each replacement dates its folder.
        with contextlib.suppress(OSError):
            if other.stat().st_mtime < before:
                shutil.rmtree(other)
    for report in read_reports(folder):
        # A master starts none in place of one that has ended, but by a reload. Its numbers stay.
        if report.state != "stopped" and not process_runs(report.pid):
            write_report(folder, replace(report, state="stopped"))


def process_runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _namespace() -> int:
    """What tells containers apart, in each of which the master is process 1."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        return 0


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "0" if process_runs(pid) else ""
    return text.rpartition(")")[2].split()[_START_TIME]
