"""Workers as operators run them: masters of Dramatiq, started again whenever they end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.processes import GuardedProcess

_DRAMATIQ = Path(sys.executable).parent / "dramatiq"
_INSIDE = Path(__file__).parent / "inside"
_POLL_SECONDS = 0.05
_KILL_SECONDS = 5.0
#: A worker may take 8 s to stop, and Dramatiq's master then up to two.
STOP_SECONDS = 12.0


class Fleet:
    """Some Dramatiq masters under a supervisor that starts each again when it ends.

    One with several processes stops all of them when one dies, so the loss of a single worker
    among others takes several masters.

    `environment` and `modules` may be changed: they count for whatever starts next. Modules are
    loaded by every worker process; they lie in the folder ``inside``. `log` takes what they print.
    """

    def __init__(self, environment: dict[str, str], *, masters: int, processes: int) -> None:
        self.environment = environment
        self.modules: Sequence[str] = ()
        self.restarts = 0
        self.exit_codes: list[int] = []
        self.folder = Path(tempfile.mkdtemp(prefix="flashsale-fleet-"))
        self.log = self.folder / "workers.log"
        self._processes = processes
        self._masters: list[GuardedProcess | None] = [None] * masters
        self._changing = threading.RLock()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="fleet", daemon=True)

    def start(self) -> None:
        for place in range(len(self._masters)):
            self._masters[place] = self._new_master()
        self._supervisor.start()

    @property
    def size(self) -> int:
        """Worker processes, when all run."""
        return len(self._masters) * self._processes

    def master_pids(self) -> list[int]:
        with self._changing:
            return [master.pid for master in self._masters if master]

    def worker_pids(self) -> list[int]:
        """The processes that do the work; those still starting are among them."""
        return [pid for master in self.master_pids() for pid in _children(master)]

    def signal(self, pids: Iterable[int], number: signal.Signals) -> None:
        """Send a signal to those that still run."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, pids: Iterable[int]) -> None:
        self.signal(pids, signal.SIGKILL)

    def restart(self, seconds: float = STOP_SECONDS) -> list[int]:
        """Stop all by SIGTERM and let new ones start; returns the exit codes."""
        with self._changing:
            codes = self._end_masters(seconds)
            for place in range(len(self._masters)):
                self._masters[place] = self._new_master()
        return codes

    def stop(self) -> list[int]:
        """Stop all by SIGTERM, for good; returns the exit codes, -9 for one that had to be killed.

        Harmless when repeated.
        """
        self._stopping.set()
        if self._supervisor.ident is not None:
            self._supervisor.join()
        return self._end_masters(STOP_SECONDS)

    def close(self) -> None:
        """End what still runs, and remove the log."""
        self._stopping.set()
        if self._supervisor.ident is not None:
            self._supervisor.join()
        pids = [*self.worker_pids(), *self.master_pids()]
        self.signal(pids, signal.SIGCONT)
        self.kill(pids)
        for master in self._masters:
            if master:
                master.wait(_KILL_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _supervise(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            with self._changing:
                for place, master in enumerate(self._masters):
                    if master and (code := _exit_code(master)) is not None:
                        self.exit_codes.append(code)
                        self.restarts += 1
                        self._masters[place] = self._new_master()

    def _new_master(self) -> GuardedProcess:
        command = [
            *(str(_DRAMATIQ), "flashsale.actors", *self.modules),
            *("--path", str(_INSIDE)),
            *("--processes", str(self._processes)),
            # By default a master takes 30 s to notice a worker that died while it was starting.
            *("--worker-fork-timeout", "3000"),
        ]
        # The environment is the round's alone: no setting of the caller's gets in.
        basics = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        return GuardedProcess(
            command,
            folder=self.folder,
            log=self.log,
            ending=signal.SIGKILL,
            env={**basics, **self.environment},
        )

    def _end_masters(self, seconds: float) -> list[int]:
        self.signal(self.master_pids(), signal.SIGTERM)
        codes = []
        for place, master in enumerate(self._masters):
            if master is None:
                continue
            try:
                codes.append(master.wait(seconds))
            except subprocess.TimeoutExpired:
                self.kill([*_children(master.pid), master.pid])
                master.wait(_KILL_SECONDS)
                codes.append(-signal.SIGKILL)
            self._masters[place] = None
        return codes


def _exit_code(master: GuardedProcess) -> int | None:
    try:
        return master.wait(0)
    except subprocess.TimeoutExpired:
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found
