"""What is built from setup.cfg is all of the project's code."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_package_is_in_the_wheel() -> None:
    """An editable installation, as developers have it, works without."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "flashsale").rglob("__init__.py")
    }

    assert sorted([*there, "flashsale.migrations"]) == listed
