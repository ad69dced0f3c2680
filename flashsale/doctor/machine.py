"""What is around the worker on its own machine: versions, folders, variables."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import flashsale
from flashsale.doctor.finding import Finding, fail, ok, unknown, warn
from flashsale.private_folders import why_not_private
from flashsale.settings import Settings
from flashsale.urls import exposures

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*)(;.*)?")
_BOUND = re.compile(r"(>=|<)([\d.]+)")
_LEAST_FREE_BYTES = 100_000_000


def examine_versions() -> Iterator[Finding]:
    """Python, and the libraries against the versions that flashsale asks for."""
    says = f"flashsale {flashsale.__version__} on Python {platform.python_version()}"
    try:
        requirements = metadata.requires("flashsale") or []
    except metadata.PackageNotFoundError:
        yield unknown("versions", f"{says}, not installed", "install it: `pip install .`")
        return
    there, wrong = [], []
    for requirement in requirements:
        parts = _REQUIREMENT.match(requirement)
        if parts is None or parts[3]:  # of an extra
            continue
        name, bounds = parts[1], parts[2].strip()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        there.append(f"{name} {version}")
        if not _is_within(version, bounds):
            wrong.append(f"{name} is {version}, not {bounds}")
    for each in wrong:
        yield fail("versions", each, "install flashsale with its dependencies: `pip install .`")
    if not wrong:
        yield ok("versions", f"{says}; {', '.join(there)}")


def examine_environment(settings: Settings, given: Mapping[str, str]) -> Iterator[Finding]:
    """The variables `given`, of which the settings were read."""
    missing = [name for name in ("DATABASE_URL", "RABBITMQ_URL") if not given.get(name, "").strip()]
    for name in missing:
        yield warn(
            "environment",
            f"{name} is not set, so its default is used",
            f"set {name}, as for the worker: this examines what it names",
        )
    for exposure in exposures(settings.database, settings.broker_urls):
        says, _, remedy = exposure.partition(": ")
        yield warn("exposure", says, remedy)
    if not missing:
        yield ok("environment", "every variable has a value that makes sense")


def examine_state_folder(settings: Settings) -> Iterator[Finding]:
    """Whether the worker can write there, and nobody else."""
    folder = Path(settings.state_folder)
    remedy = "mend the folder, or name another in FLASHSALE_STATE_FOLDER"
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    problem = why_not_private(folder) if there == folder else None
    if problem is not None:
        yield fail("state-folder", f"{folder}: {problem}", remedy)
    elif not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield fail("state-folder", f"{folder} cannot be written to by this user", remedy)
    elif (free := shutil.disk_usage(there).free) < _LEAST_FREE_BYTES:
        yield warn("state-folder", f"{folder} has {free / 1e6:,.0f} MB left", "make room there")
    else:
        yield ok("state-folder", f"{folder} can be written to")


def _is_within(version: str, bounds: str) -> bool:
    found = _numbers(version)
    return all(
        found >= _numbers(bound) if operator == ">=" else found < _numbers(bound)
        for operator, bound in _BOUND.findall(bounds)
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
