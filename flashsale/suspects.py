"""On disk: which events were at work when a process died. See :mod:`flashsale.batching.intake`.

A file for each event under watch, named after its body's fingerprint, a byte long for each death.
The processes of one machine share the folder, since an event comes again to any of them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

# An event that somebody else has settled leaves its file behind.
_FORGET_SECONDS = 7 * 24 * 3600


class Suspects:
    """A folder of suspects. Where it cannot be used, nobody is suspected, and a log line says so.

    Not made to outlast the machine: a file that is lost costs one more death.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._usable: bool | None = None

    def deaths(self, body: bytes) -> int:
        if not self._is_usable():
            return 0
        try:
            return self._path(body).stat().st_size
        except OSError:
            return 0

    def begin(self, bodies: Sequence[bytes]) -> None:
        for body in bodies if self._is_usable() else ():
            try:
                with self._path(body).open("ab") as file:
                    file.write(b"x")
            except OSError as error:
                self._give_up(error)

    def end(self, bodies: Sequence[bytes]) -> None:
        for body in bodies if self._is_usable() else ():
            self._path(body).unlink(missing_ok=True)

    def _path(self, body: bytes) -> Path:
        return self._folder / hashlib.sha256(body).hexdigest()

    def _is_usable(self) -> bool:
        if self._usable is None:
            self._usable = True
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._folder.stat().st_uid != os.geteuid():
                    raise PermissionError("the folder belongs to somebody else")
                self._forget_old()
            except OSError as error:
                self._give_up(error)
        return self._usable

    def _forget_old(self) -> None:
        before = time.time() - _FORGET_SECONDS
        for path in self._folder.iterdir():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _give_up(self, error: OSError) -> None:
        self._usable = False
        log.warning(
            "suspects.unusable",
            extra={"folder": str(self._folder), "cause": error.strerror or str(error)},
        )
