"""Folders that nobody else may write to, since what is found in them is believed."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make `folder` where it lacks, for its owner alone.

    Raises:
        OSError: it cannot be made, is a link, or is another's; the text says what to do.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError("the folder is a link; name the folder itself")
    if status.st_uid != os.geteuid():
        raise PermissionError("the folder belongs to somebody else; name one of the worker's own")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("others may write to the folder; take that right from them")
