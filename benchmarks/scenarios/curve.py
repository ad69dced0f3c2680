"""Latency by rate as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_PLAIN_NUMBERS = FuncFormatter(lambda value, _: f"{value:,.10g}")
_STYLE = {"font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "flashsale"}


def draw(path: Path, rates: Sequence[float], percentiles: Mapping[str, Sequence[float]]) -> None:
    """Write an SVG file: a line for each percentile, in milliseconds, both axes logarithmic."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.add_subplot(xlabel="events offered a second", ylabel="ms")
        axes.set(xscale="log", yscale="log")
        for title, values in percentiles.items():
            axes.plot(rates, values, marker="o", markersize=3, label=title)
        axes.xaxis.set_major_formatter(_PLAIN_NUMBERS)
        axes.yaxis.set_major_formatter(_PLAIN_NUMBERS)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        # Without a date the same figures make the same file.
        figure.savefig(path, metadata={"Date": None})
