"""The picture of the architecture is the code's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.documents import blocks

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flashsale"
HEADING = "## The architecture on one page"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LISTED = [
    (module, room)
    for room, modules in re.findall(r"^\| (\w+) \| ((?:`\w+` ?)+) \|", PAGE, re.MULTILINE)
    for module in re.findall(r"`(\w+)`", modules)
]
ROOMS = dict(LISTED)


def sources() -> Iterator[tuple[str, ast.AST]]:
    """Each file of the package, as the module below ``flashsale`` that it belongs to."""
    for folder, prefix in ((PACKAGE, ()), (ROOT / "migrations", ("migrations",))):
        for path in folder.rglob("*.py"):
            module, *_ = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            yield module, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules below ``flashsale`` that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for package, module, *_ in (f"{name}.".split(".") for name in names):
            if package == "flashsale":
                yield module


def test_there_is_an_arrow_exactly_where_a_room_imports_another() -> None:
    (picture,) = blocks("CONTRIBUTING.md", "mermaid", HEADING)
    drawn = {
        (room, target)
        for room, targets in re.findall(r"^ +(\w+) --> (.+)$", picture, re.MULTILINE)
        for target in targets.split(" & ")
    }
    # `from flashsale import __version__` is of no room.
    real = {
        (ROOMS[module], ROOMS[target])
        for module, tree in sources()
        if module != "__init__"
        for target in imported(tree)
        if target in ROOMS and ROOMS[target] != ROOMS[module]
    }

    assert drawn == real


def test_each_module_is_in_one_room() -> None:
    there = {module for module, _ in sources()} - {"__init__"}

    assert sorted(module for module, _ in LISTED) == sorted(there)


def test_the_arrows_go_down_only() -> None:
    """No room imports another that imports it, by whatever way."""
    (picture,) = blocks("CONTRIBUTING.md", "mermaid", HEADING)
    order = [*re.findall(r"^ +(\w+) -->", picture, re.MULTILINE), "batching", "base"]
    for room, targets in re.findall(r"^ +(\w+) --> (.+)$", picture, re.MULTILINE):
        assert all(order.index(target) > order.index(room) for target in targets.split(" & "))
