"""What several commands have alike: a progress bar, and the option that names a database."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress

from flashsale.urls import DatabaseAddress, parse_database_url

_SALE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class DatabaseUrl(click.ParamType):  # type: ignore[type-arg]  # generic in recent versions only
    """An option's value that is a database URL; gives the command a :class:`DatabaseAddress`."""

    name = "URL"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> DatabaseAddress:
        try:
            return parse_database_url(value)
        except ValueError as problem:  # its text holds no part of the URL, unlike click's own
            self.fail(str(problem), param, ctx)


class SaleId(click.ParamType):  # type: ignore[type-arg]
    """An option's value that is a sale's id; gives the command its usual spelling."""

    name = "UUID"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _SALE_ID.fullmatch(value):
            self.fail(f"{value!r} is not a sale's id: 8-4-4-4-12 hexadecimal digits", param, ctx)
        return value.lower()


class Number(click.FloatRange):
    """An option's value that is a number of a range, which NaN is in click's own eyes."""

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, else nothing. Yields what to call with the number done."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)
