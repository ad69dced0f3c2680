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
    problem = why_not_private(folder)
    if problem is not None:
        raise PermissionError(problem)


def why_not_private(folder: Path) -> str | None:
    """What is wrong with a folder that exists, and what to do; None where nothing is."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "the folder is a link; name the folder itself"
    if status.st_uid != os.geteuid():
        return "the folder belongs to somebody else; name one of the worker's own"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others may write to the folder; take that right from them"
    return None
