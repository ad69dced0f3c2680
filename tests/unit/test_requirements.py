"""The lock in requirements/ holds what setup.cfg asks for, and nothing that is not checked."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("worker.txt", "test.txt", "build.txt")


def asked_for(lock: str) -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    worker = setup["options"]["install_requires"].split("\n")
    extras = setup["options.extras_require"]
    lines = {
        "worker.txt": worker,
        "test.txt": [*worker, *extras["test"].split("\n"), *extras["report"].split("\n")],
        "build.txt": pyproject["build-system"]["requires"],
    }
    return [Requirement(line) for line in filter(None, lines[lock])]


def entries(lock: str) -> list[str]:
    """Each package of the lock with its hashes, as one line without comments."""
    text = (ROOT / "requirements" / lock).read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def pins(lock: str) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for entry in entries(lock):
        pin = Requirement(entry.split("--hash")[0].strip())
        found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_requirement_is_locked_to_a_version_it_allows(lock: str, python: str) -> None:
    """`make lock` renews it after a change of setup.cfg."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    locked = pins(lock)
    for requirement in asked_for(lock):
        (version,) = [
            next(iter(pin.specifier)).version
            for pin in locked.get(canonicalize_name(requirement.name), [])
            if pin.marker is None or pin.marker.evaluate(environment)
        ]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_has_a_hash_and_comes_from_no_index_of_our_choice(lock: str) -> None:
    for entry in entries(lock):
        assert re.fullmatch(r"\S+==\S+( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_worker_and_tests_have_the_same_versions() -> None:
    def versions(lock: str) -> dict[str, set[str]]:
        return {name: {str(pin.specifier) for pin in each} for name, each in pins(lock).items()}

    assert versions("worker.txt").items() <= versions("test.txt").items()
