"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It cannot be told from here; the remedy says how to find out."""
    WARN = "warn"
    """It works, and could be better, or will not work for long."""
    FAIL = "fail"
    """Orders are not written, or are at risk."""


@dataclass(frozen=True)
class Finding:
    """One thing that was examined. Both texts are safe to print: no credentials, no rows."""

    check: str
    level: Level
    says: str
    #: What to do about it; empty where nothing is to be done.
    remedy: str = ""


def ok(check: str, says: str) -> Finding:
    return Finding(check, Level.OK, says)


def unknown(check: str, says: str, remedy: str) -> Finding:
    return Finding(check, Level.UNKNOWN, says, remedy)


def warn(check: str, says: str, remedy: str) -> Finding:
    return Finding(check, Level.WARN, says, remedy)


def fail(check: str, says: str, remedy: str) -> Finding:
    return Finding(check, Level.FAIL, says, remedy)
