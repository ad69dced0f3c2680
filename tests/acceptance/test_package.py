"""The package as users get it: built, installed where nothing else is, and used from elsewhere."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

import flashsale

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
SECONDS = 300
#: What lies in a working copy, and is no part of the project.
LITTER = (".git", ".tox", ".venv", ".venvs", ".*_cache", ".hypothesis", "build", "dist")
USER = """
from flashsale.client import publish_purchase
from flashsale.purchases import Purchase

purchase: Purchase = Purchase.parse(b"{}", max_bytes=1_000)
publish_purchase(sale_id=purchase.sale_id, user_id=purchase.user_id)
"""


class Package(NamedTuple):
    """The sdist unpacked, and a virtual environment with the wheel that was built from it."""

    source: Path
    scripts: Path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LITTER, "__pycache__", "*.egg-info"))
    builder = environment(folder / "builder", "--require-hashes", "-r", "requirements/build.txt")
    build(builder, tree, "sdist", folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    build(builder, source, "wheel", folder)
    (wheel,) = folder.glob("*.whl")
    worker = ("--require-hashes", "--only-binary", ":all:", "-r", "requirements/worker.txt")
    scripts = environment(folder / "clean", *worker)
    pip(scripts, "install", "--no-deps", "--no-index", str(wheel))
    return Package(source, scripts)


def environment(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment with these; returns the folder of its programs."""
    venv.create(folder, symlinks=True, with_pip=False)
    pip(folder / "bin", "install", "--quiet", *requirements)
    return folder / "bin"


def pip(scripts: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, timeout=SECONDS)


def build(scripts: Path, source: Path, what: str, target: Path) -> None:
    """Build as pip does, by the hook that pyproject.toml names."""
    code = f"from setuptools import build_meta; build_meta.build_{what}({str(target)!r})"
    command = [str(scripts / "python"), "-c", code]
    subprocess.run(command, cwd=source, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)


def run(package: Package, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the clean environment, in `folder`, with nothing of the caller's."""
    program, *arguments = shlex.split(command)
    return subprocess.run(
        [str(package.scripts / program), *arguments],
        cwd=folder,
        env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def test_the_wheel_has_all_that_it_needs_and_nothing_beside_it(package: Package) -> None:
    pip(package.scripts, "check")
    (record,) = package.scripts.parent.glob("lib/*/site-packages/flashsale-*/RECORD")
    tops = {line.split("/")[0].split("-")[0] for line in record.read_text().splitlines()}
    assert tops == {"flashsale", ".."}  # the latter are commands


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("flashsale --version", f"flashsale, version {flashsale.__version__}"),
        ("python -m flashsale --version", f"flashsale, version {flashsale.__version__}"),
        ("flashsale migrate", "applied  003_create_order_audit_trail"),
        ("flashsale demo --events 2000", "2,000"),
        ("python -c 'import flashsale.actors'", ""),
        ("python -c 'import flashsale.replay'", ""),
    ],
)
def test_what_is_installed_works_anywhere(
    package: Package, tmp_path: Path, command: str, says: str
) -> None:
    done = run(package, tmp_path, command)

    assert done.returncode == 0, done.stderr
    assert says in done.stdout + done.stderr


def test_the_sdist_is_the_whole_project(package: Package) -> None:
    """All that git knows; where there is no git, what none of it could be missing."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        names = [name for name in listed if (ROOT / name).is_file()]
    else:
        names = ["Makefile", "CHANGELOG.md", "docs/README.md", "tests/conftest.py", "tox.ini"]

    assert [name for name in names if not (package.source / name).is_file()] == []


def test_the_types_are_those_of_users_too(package: Package, tmp_path: Path) -> None:
    """With mypy --strict, and so that a mistake is seen."""
    mypy = environment(tmp_path / "mypy", "mypy") / "mypy"
    user = tmp_path / "user.py"

    def complaints(text: str) -> str:
        user.write_text(text)
        command = [str(mypy), "--strict", "--python-executable", str(package.scripts / "python")]
        done = subprocess.run(
            [*command, "--cache-dir", str(tmp_path / "cache"), str(user)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return "" if done.returncode == 0 else done.stdout

    assert complaints(USER) == ""
    assert "arg-type" in complaints(USER.replace("user_id=purchase.user_id", "user_id=7"))
