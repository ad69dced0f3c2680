"""``flashsale top``: how it goes, live."""

from __future__ import annotations

import time
from contextlib import suppress

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from flashsale.cli.shared import Number
from flashsale.cli.status_view import Past, view
from flashsale.settings import Settings
from flashsale.status import Status, StatusWatch


@click.command
@click.option(
    "--interval",
    type=Number(0.5, 60),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
def top(interval: float) -> None:
    """Show what `flashsale status` shows, again and again, with the last 40 looks as sparklines.

    Fewer where the terminal is narrow; below 72 columns, none. Ctrl-C ends it. NO_COLOR takes the
    colours away.

    \b
    Examples:
      flashsale top
      flashsale top --interval 1
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        raise click.UsageError("stdout is no terminal; use `flashsale status --json` instead")
    past = Past()
    with (
        StatusWatch(Settings.from_env()) as watch,
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        live.update(Text("looking …"), refresh=True)
        while True:
            begun = time.monotonic()
            status = watch.look()
            past.add(status)
            live.update(page(status, past, console), refresh=True)
            time.sleep(max(0.0, begun + interval - time.monotonic()))


def page(status: Status, past: Past, console: Console) -> RenderableType:
    """One screen, as wide as it is now."""
    at = status.at.astimezone().strftime("%H:%M:%S")
    title = Text.assemble(("flashsale top", "bold"), f"  {at}", ("  Ctrl-C ends it", "dim"))
    shown = view(status, past, width=console.width, plain=console.options.ascii_only)
    return Group(title, "", shown)
