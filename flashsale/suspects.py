"""On disk: which events were at work when a process died. See :mod:`flashsale.batching.intake`.

A file for each event under watch, named after its body's fingerprint, a byte long for each death.
The processes of one machine share the folder, since an event comes again to any of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from flashsale.private_folders import make_private

log = logging.getLogger(__name__)

# The folder that is set may hold other things, and be anyone's choice; this one is ours alone.
_SUBFOLDER = "suspects"
_NAME = re.compile("[0-9a-f]{64}")
# An event that somebody else has settled leaves its file behind.
_FORGET_SECONDS = 7 * 24 * 3600


class Suspects:
    """A folder of suspects. Where it cannot be used, nobody is suspected, and a log line says so.

    Not made to outlast the machine: a file that is lost costs one more death. It lives on the
    consumer's thread, save for :meth:`forgive`.
    """

    def __init__(self, folder: Path) -> None:
        self._parent = folder
        self._folder = folder / _SUBFOLDER
        self._usable: bool | None = None
        self._begun: set[Path] = set()

    def deaths(self, body: bytes) -> int:
        if not self._is_usable():
            return 0
        try:
            return self._path(body).lstat().st_size
        except OSError:
            return 0

    def begin(self, bodies: Sequence[bytes]) -> None:
        if not self._is_usable():
            return
        try:
            for path in self._paths(bodies):
                self._begun.add(path)
                _append_byte(path)
        except OSError as error:
            self._give_up(error)

    def end(self, bodies: Sequence[bytes]) -> None:
        if not self._is_usable():
            return
        try:
            for path in self._paths(bodies):
                path.unlink(missing_ok=True)
                self._begun.discard(path)
        except OSError as error:
            self._give_up(error)

    def forgive(self) -> None:
        """End all that this process has begun, and begin no more: none of it is to blame.

        Thread-safe, and never waits for the thread that begins and ends.
        """
        self._usable = False
        for path in self._begun.copy():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _paths(self, bodies: Sequence[bytes]) -> Iterable[Path]:
        # A body that stands twice in a batch dies once.
        return map(self._path, set(bodies))

    def _path(self, body: bytes) -> Path:
        return self._folder / hashlib.sha256(body).hexdigest()

    def _is_usable(self) -> bool:
        if self._usable is None:
            self._usable = True
            try:
                for folder in (self._parent, self._folder):
                    make_private(folder)
                self._forget_old()
            except OSError as error:
                self._give_up(error)
        return self._usable

    def _forget_old(self) -> None:
        before = time.time() - _FORGET_SECONDS
        for path in self._folder.iterdir():
            if _NAME.fullmatch(path.name):
                # A sibling that starts at the same time does the same.
                with contextlib.suppress(OSError):
                    if path.lstat().st_mtime < before:
                        path.unlink()

    def _give_up(self, error: OSError) -> None:
        log.warning(
            "suspects.unusable",
            extra={"folder": str(self._folder), "cause": error.strerror or str(error)},
        )
        self.forgive()  # what cannot be ended later must not count


def _append_byte(path: Path) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, mode=0o600)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
