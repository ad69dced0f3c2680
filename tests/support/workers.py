"""The worker as an operator runs it: the dramatiq command, in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.processes import GuardedProcess, process_tree
from tests.support.waiting import wait_until

_DRAMATIQ = Path(sys.executable).parent / "dramatiq"
_END_SECONDS = 15


class RunningWorker:
    """``dramatiq flashsale.actors``, gone with the ``with`` block or the process.

    `env` is all of the environment that the worker reads; nothing of the caller's own gets in. It
    has no exporter unless `env` gives it a port.
    `command` is what is started in its place, if anything.
    """

    def __init__(
        self, env: Mapping[str, str], *, processes: int = 3, command: Sequence[str] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flashsale-worker-"))
        self._process = GuardedProcess(
            command or [str(_DRAMATIQ), "flashsale.actors", "--processes", str(processes)],
            folder=self.folder,
            log=self.folder / "worker.log",
            ending=signal.SIGTERM,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "FLASHSALE_METRICS_PORT": "0",
                **env,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The master's process id, which is its process group's too."""
        return self._process.pid

    def pids(self) -> list[int]:
        """The master and every process below it."""
        return process_tree(self.pid)

    def consumer_pids(self) -> list[int]:
        """The processes below the master that have threads: those that consume."""
        return [
            pid
            for pid in self.pids()[1:]
            if sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > 1
        ]

    def terminate(self) -> None:
        """Ask it to stop, as Docker and Kubernetes do."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End all its processes at once, with no time to finish anything."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(_END_SECONDS)

    def wait(self, timeout: float) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        return self._process.wait(timeout)

    def check_running(self) -> None:
        """Raise RuntimeError, with the last lines of the log, where it has ended."""
        self._process.check_running()

    def log(self) -> str:
        """All that it has written to stderr so far."""
        return self._process.log.read_text(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event so far, as JSON objects."""
        whole_lines = self.log().splitlines(keepends=True)
        lines = [json.loads(line) for line in whole_lines if line[0] == "{" and line[-1] == "\n"]
        return [line for line in lines if line["event"] == event]

    def wait_for_log(self, event: str, timeout: float, *, lines: int = 1) -> list[dict[str, Any]]:
        """The log lines of this event, once there are so many.

        Raises:
            RuntimeError: the worker has ended.
            TimeoutError: they have not come.
        """

        def enough() -> list[dict[str, Any]] | None:
            found = self.logged(event)
            if len(found) >= lines:
                return found
            self.check_running()
            return None

        found = wait_until(enough, timeout, f"the worker logs {event} {lines} times")
        assert found is not None
        return found

    def wait_for_text(self, text: str, timeout: float) -> None:
        """Return when the log holds `text`, in whatever format it is."""
        wait_until(lambda: text in self.log(), timeout, f"the worker's log holds {text}")

    def close(self) -> None:
        """End what still runs, and remove the folder with the log."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
