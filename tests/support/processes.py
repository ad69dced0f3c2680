"""Server processes that cannot outlive the process that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Self, TypeVar

_GUARDIAN = Path(__file__).with_name("guardian.py")
_LOG_TAIL_LINES = 20
# By these a process takes part where coverage or mutants are measured.
_MEASURES = ("COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG", "MUTANT_UNDER_TEST")


class ServerNotInstalled(Exception):
    """A server's programs are missing; the text says how to install them."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"{program} is not installed:"
            " run `apt-get install postgresql rabbitmq-server prometheus` or `make servers`"
        )


def measured(env: Mapping[str, str]) -> dict[str, str]:
    """An environment of its own for a process, which takes part where this one is measured."""
    return {**{name: os.environ[name] for name in _MEASURES if name in os.environ}, **env}


class GuardedProcess:
    """A running server. It ends, and `folder` goes, when the starting process ends.

    Its output is appended to `log`. `ending` is the signal that ends it quickly and leaves
    nothing behind. Any thread may start and signal it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        ending: signal.Signals,
        env: Mapping[str, str] | None = None,
        user: str = "",
    ) -> None:
        guardian = [sys.executable, "-I", "-S", str(_GUARDIAN)]
        about = [str(os.getpid()), str(int(ending)), str(folder), user]
        self.log = log
        with log.open("ab") as output:
            self._guardian = subprocess.Popen(
                [*guardian, *about, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env=None if env is None else measured(env),
                start_new_session=True,  # Ctrl-C is for the owner alone
            )
        assert self._guardian.stdout is not None
        with self._guardian.stdout as stdout:
            first_line = stdout.readline()
        if not first_line:
            self._guardian.wait()
            raise RuntimeError(f"{command[0]} could not be started:\n{self.log_tail()}")
        self.pid = int(first_line)

    def check_running(self) -> None:
        """Raise RuntimeError, with the last lines of the log, where the server has ended."""
        if self._guardian.poll() is not None:
            raise RuntimeError(f"the server ended by itself:\n{self.log_tail()}")

    def end(self, how: signal.Signals, timeout: float) -> None:
        """Signal the server and return when it is gone. Nothing happens if it already is.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self._guardian.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, how)
            self._guardian.wait(timeout)

    def wait(self, timeout: float) -> int:
        """The server's exit code once it has ended; 256 less a signal's number where one ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        return self._guardian.wait(timeout)

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


class PrivateServer(ABC):
    """A server that is started at the beginning of a ``with`` block and closed at its end."""

    @abstractmethod
    def start(self) -> None:
        """Return when it can be used."""

    @abstractmethod
    def close(self) -> None:
        """End it, and remove what it has left. Harmless when repeated, or before a start."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_Server = TypeVar("_Server", bound=PrivateServer)


@cache
def kept(make: Callable[[], _Server]) -> _Server:
    """The one server of its kind that this process has; it is closed when the process ends.

    Processes that this one forks may use it, too.
    """
    server = make()
    server.start()
    return server


def process_tree(pid: int) -> list[int]:
    """A process and every process below it that runs now."""
    found = [pid]
    for each in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            children = Path(f"/proc/{each}/task/{each}/children").read_text()
            found += map(int, children.split())
    return found


def cpu_seconds(pid: int) -> float:
    """What a process and those below it have used so far, also those that have ended."""
    ticks = 0
    for each in process_tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            # The program's name, in parentheses, may hold anything, also spaces.
            after_name = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, after_name[11:15]))  # proc(5): utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")
