"""What the worker's processes hold while a scenario plays: memory, threads, files, sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.workers import RunningWorker


class Footprint(NamedTuple):
    """One process at one moment; the megabytes are millions of bytes.

    The proportional set (pss) counts a page that n processes share as the n-th part of it.
    """

    at: float
    pid: int
    rss_mb: float
    pss_mb: float
    threads: int
    files: int
    sockets: int


@contextmanager
def footprints(worker: RunningWorker, interval: float) -> Iterator[list[Footprint]]:
    """The footprints of each consuming process, taken every `interval` seconds of the block.

    The list grows from a thread of its own until the block ends.
    """
    taken: list[Footprint] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval):
            for pid in worker.consumer_pids():
                with suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
                    taken.append(_footprint(pid))

    thread = threading.Thread(target=run, name="footprints", daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def largest(taken: list[Footprint]) -> dict[str, float]:
    """The most memory that one process had, in megabytes."""
    return {
        "rss_mb": round(max(each.rss_mb for each in taken), 1),
        "pss_mb": round(max(each.pss_mb for each in taken), 1),
    }


def _footprint(pid: int) -> Footprint:
    folder = Path(f"/proc/{pid}")
    memory = dict.fromkeys(("Rss", "Pss"), 0)
    for line in (folder / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in memory:
            memory[name] = int(rest.split()[0])  # in units of 1,024 bytes
    targets = []
    for descriptor in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            targets.append(str(descriptor.readlink()))
    return Footprint(
        at=round(time.time(), 1),
        pid=pid,
        rss_mb=round(memory["Rss"] * 1024 / 1e6, 2),
        pss_mb=round(memory["Pss"] * 1024 / 1e6, 2),
        threads=len(list((folder / "task").iterdir())),
        files=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
    )
