"""Makes what a contestant runs in: its own virtual environment, or what its Makefile builds."""

from __future__ import annotations

import subprocess
import sys

from .contestants import Contestant


class NotInstallable(Exception):
    """A contestant's environment could not be made; the text says why."""


def prepare(contestant: Contestant) -> None:
    """Make the contestant's environment, unless it is as its folder asks for already.

    Raises:
        NotInstallable: pip or make failed; the contestant cannot run here.
    """
    if contestant.home is None:
        return
    requirements = contestant.folder / "requirements.txt"
    if not requirements.exists():
        _run("make", "--quiet", "-C", str(contestant.folder), f"BIN={contestant.bin}")
        return
    installed = contestant.home / "requirements.txt"
    if installed.exists() and installed.read_text() == requirements.read_text():
        return
    _run(sys.executable, "-m", "venv", "--clear", str(contestant.home))
    _run(str(contestant.bin / "python"), "-m", "pip", "install", "-q", "-r", str(requirements))
    installed.write_text(requirements.read_text())


def _run(*command: str) -> None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise NotInstallable(str(missing)) from None
    if answer.returncode:
        last_lines = answer.stderr.strip().splitlines()[-5:]
        raise NotInstallable("\n".join([" ".join(command), *last_lines]))
