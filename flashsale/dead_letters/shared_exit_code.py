"""One exit code for all processes of a Dramatiq master, of which one does the work."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path
from typing import Self

from flashsale import exit_codes


class SharedExitCode:
    """The exit code of the one process of a master that replays, with which the others end too.

    Dramatiq's master joins its processes in turn, and never learns the code of one that ends during
    the join of a later one, if none is left after that: it must not matter whose code it sees.
    Another command at the same letters is told by the queue's own lock.

    Attributes:
        is_ours: Whether this process is the one that replays, till the context ends.
    """

    def __init__(self, folder: Path) -> None:
        master = multiprocessing.parent_process()
        self._path = folder / f"replay-{master.pid if master else os.getpid()}.lock"

    def __enter__(self) -> Self:
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_ours = True
            # A killed master of the same process id may have left one.
            self._file.truncate(0)
        except BlockingIOError:
            self.is_ours = False
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_ours:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def write(self, code: int) -> None:
        """Tell the others, who read it once this context has ended."""
        self._file.write(str(code))
        self._file.flush()

    def read(self) -> int:
        """The code of the process that replays, once it has ended; 1 where it told none."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.seek(0)
        return int(self._file.read() or exit_codes.FAILURE)
