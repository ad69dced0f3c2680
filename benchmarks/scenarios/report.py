"""What a scenario leaves: a JSON file that names the machine and the versions, and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, versions
from benchmarks.stage import Stage

_FILE_WIDTH = 200  # no table is as wide: into a file or a pipe none is folded
_FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"


def output_option(name: str) -> Any:
    """The option of a command that says where its JSON file goes."""
    return click.option(
        "--output",
        default=_FOLDER / f"{name}.json",
        show_default=f"docs/benchmarks/{name}.json",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The JSON file to write.",
    )


def write(output: Path, stage: Stage, options: Mapping[str, Any], **results: Any) -> None:
    """Write results to `output`, with the machine, the versions and the time."""
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(stage.postgres, stage.rabbitmq),
        "options": options,
        **results,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(f"written to {output}", err=True)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row))
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
