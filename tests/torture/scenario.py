"""What a scenario is, and where all of them are listed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.torture.harness import Round
    from tests.torture.stage import Stage


def _always() -> str:
    return ""


@dataclass(frozen=True)
class Scenario:
    """One fault as it is made here. `name` begins with the fault's number."""

    name: str
    #: What is done, in a few words.
    what: str
    run: Callable[[Round], None]
    #: Why it fails at present; a pass is then as remarkable as a failure is elsewhere.
    known_failing: str = ""
    #: Why this machine cannot make it; empty where it can.
    missing: Callable[[], str] = _always
    #: Makes the servers that it needs, given those that all scenarios share.
    on: Callable[[Stage], AbstractContextManager[Stage]] = nullcontext

    @property
    def fault(self) -> str:
        return self.name.partition(".")[0]


SCENARIOS: list[Scenario] = []


def scenario(
    name: str,
    what: str,
    *,
    known_failing: str = "",
    missing: Callable[[], str] = _always,
    on: Callable[[Stage], AbstractContextManager[Stage]] = nullcontext,
) -> Callable[[Callable[[Round], None]], Callable[[Round], None]]:
    """Enter the function below as a scenario."""

    def enter(run: Callable[[Round], None]) -> Callable[[Round], None]:
        SCENARIOS.append(Scenario(name, what, run, known_failing, missing, on))
        return run

    return enter
