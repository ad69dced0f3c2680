"""What flashsale is measured against: one folder for each contestant, which describes itself.

A contestant is a worker that turns the events of the purchase queue into orders, each with one
CONFIRMED audit row, and acknowledges after the commit. Its folder holds:

``contestant.toml``
    ``title``: what the report calls it. ``command``: what starts it, as a list; the program is
    looked up in the contestant's own ``bin``, and ``{processes}`` is replaced. ``pace``, where it
    is slow: about how many orders a second it writes, from which its backlog follows.
    ``[environment]``, where it needs more than DATABASE_URL, RABBITMQ_URL, PURCHASE_QUEUE and
    DEAD_LETTER_QUEUE, which are flashsale's own.
``requirements.txt`` or ``Makefile``
    Its dependencies, pinned, for a virtual environment of its own; or how to build it into
    ``$(BIN)``. Without either it runs in the project's environment.
``envelope.py``
    Where its framework wants one: ``envelope(body)`` makes of an event's body the body and the
    headers of the message.

The folder is on PYTHONPATH. SIGTERM must end the command and every process that it has started.
"""

from __future__ import annotations

import runpy
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Envelope = Callable[[bytes], tuple[bytes, Mapping[str, Any] | None]]

_FOLDER = Path(__file__).parent
_HOMES = _FOLDER.parent / ".venvs"


@dataclass(frozen=True)
class Contestant:
    """How to make, start and feed one worker. Its `name` is that of its folder."""

    name: str
    title: str
    command: Sequence[str]
    pace: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return _FOLDER / self.name

    @property
    def home(self) -> Path | None:
        """Where its own environment is or will be; None where it runs in the project's."""
        of_its_own = ("requirements.txt", "Makefile")
        return _HOMES / self.name if any((self.folder / n).exists() for n in of_its_own) else None

    @property
    def bin(self) -> Path:
        return self.home / "bin" if self.home else Path(sys.executable).parent

    def argv(self, processes: int) -> list[str]:
        """The command that starts so many processes of it."""
        program, *arguments = self.command
        return [
            str(self.bin / program),
            *(a.replace("{processes}", str(processes)) for a in arguments),
        ]

    def requirements(self) -> list[str]:
        """Its pinned dependencies; none where it runs in the project's environment."""
        path = self.folder / "requirements.txt"
        return path.read_text().split() if path.exists() else []

    def envelope(self) -> Envelope | None:
        """What makes a message of an event's body; None where the body is the message."""
        path = self.folder / "envelope.py"
        return runpy.run_path(str(path))["envelope"] if path.exists() else None


def load_contestants() -> dict[str, Contestant]:
    """Every contestant by its name, in alphabetical order."""
    descriptions = sorted(_FOLDER.glob("*/contestant.toml"))
    return {path.parent.name: _read(path) for path in descriptions}


def _read(path: Path) -> Contestant:
    try:
        return Contestant(name=path.parent.name, **tomllib.loads(path.read_text()))
    except (TypeError, tomllib.TOMLDecodeError) as problem:
        raise ValueError(f"{path}: {problem}") from None
