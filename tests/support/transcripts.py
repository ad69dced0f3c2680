"""Sessions at a shell as the documentation shows them, for a test to type them again."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker

_COMMAND_SECONDS = 60
_LOOK_SECONDS = 30
_STOP_SECONDS = 15
#: Commands that change nothing: what they show may take the worker a moment.
_LOOKS = ("doctor", "health", "status", "verify", "dead-letters groups", "dead-letters list")


@dataclass
class Step:
    """One command and what it prints, stdout and stderr as they come."""

    command: str
    output: str = ""
    code: int = 0

    @property
    def only_looks(self) -> bool:
        return self.command.startswith(tuple(f"flashsale {name}" for name in _LOOKS))


def steps(document: Path) -> list[Step]:
    """The commands of all console blocks; a following ``echo $?`` is the command's exit code."""
    found: list[Step] = []
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            shown = 1 + sum(1 for line in lines[1:] if line.startswith("> "))
            typed = "".join([lines[0], *(line[2:] for line in lines[1:shown])])
            output = "".join(lines[shown:])
            if typed.strip() == "echo $?":
                found[-1].code = int(output)
            else:
                found.append(Step(typed.strip(), output))
    return found


@dataclass
class Session:
    """A shell in `folder` that has the variables of `env` and no others.

    A command that ends with ``&`` is a worker, which ``kill %1`` ends. `volatile` has, for each
    text of the document that is another one each time, a pattern of what may stand there; from
    where it was first printed, the real one is typed in its place.
    """

    folder: Path
    env: Mapping[str, str]
    volatile: Mapping[str, str]
    _real: dict[str, str] = field(default_factory=dict)
    _worker: RunningWorker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()

    def replay(self, step: Step) -> None:
        """Type the command.

        Raises:
            AssertionError: it printed something else, or ended with another exit code.
        """
        command = step.command
        for shown, real in self._real.items():
            command = command.replace(shown, real)
        if command.endswith("&"):
            self._start(command.removesuffix("&"))
        elif command == "kill %1":
            self._stop()
        else:
            self._compare(step, command)

    def _compare(self, step: Step, command: str) -> None:
        pattern = _pattern(step.output, self.volatile, self._real)
        output, code = "", 0

        def agrees() -> re.Match[str] | None:
            nonlocal output, code
            output, code = self._run(command)
            return pattern.fullmatch(output) if code == step.code else None

        try:
            found = wait_until(agrees, _LOOK_SECONDS if step.only_looks else 0, command)
        except TimeoutError:
            found = None
        assert found, (
            f"$ {step.command}\n{output}exit code {code}; the document has {step.code} and\n"
            f"{step.output}"
        )
        self._real |= {
            shown: found[name]
            for shown, name in _names(self.volatile).items()
            if name in found.groupdict()
        }

    def _start(self, command: str) -> None:
        assert self._worker is None
        whole = f"cd {shlex.quote(str(self.folder))} && exec {command}"
        self._worker = RunningWorker(self.env, command=["bash", "-c", whole])

    def _stop(self) -> None:
        assert self._worker is not None
        self._worker.terminate()
        assert self._worker.wait(_STOP_SECONDS) == 0

    def _run(self, command: str) -> tuple[str, int]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        # Tables are padded with blanks, which no document keeps.
        return re.sub(r" +$", "", done.stdout, flags=re.MULTILINE), done.returncode


def _names(volatile: Mapping[str, str]) -> dict[str, str]:
    """For each volatile text, the name of its group in a pattern."""
    return {shown: f"volatile{number}" for number, shown in enumerate(volatile)}


def _pattern(
    shown_output: str, volatile: Mapping[str, str], real: Mapping[str, str]
) -> re.Pattern[str]:
    """What may be printed where the document shows `shown_output`."""
    pattern = re.escape(shown_output)
    # A line of its own stands for any lines, elsewhere it stands for some characters.
    pattern = re.sub(r"^…\\?\n", "(?:.*\\n)*?", pattern, flags=re.MULTILINE).replace("…", ".+?")
    for shown, name in _names(volatile).items():
        if shown in real:
            pattern = pattern.replace(re.escape(shown), re.escape(real[shown]))
        else:
            pattern = pattern.replace(re.escape(shown), f"(?P<{name}>{volatile[shown]})", 1)
            pattern = pattern.replace(re.escape(shown), f"(?P={name})")
    return re.compile(pattern)
