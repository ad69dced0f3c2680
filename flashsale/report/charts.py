"""The report's charts, as SVG to be set into the page, which has their figures in a table too."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from flashsale.report.figures import Figures

# Every piece of ink has this colour in matplotlib and the text's in the page, light or dark.
_INK = "#010203"
_SOLD = "#2f7ed8"
_LIMIT = "#d9534f"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: smaller, searchable, in the page's own font
    "svg.hashsalt": "flashsale",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def pace_chart(figures: Figures) -> str:
    """Orders per second over the time of the sale."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("orders per second")
        rates = [bucket.orders / figures.bucket_seconds for bucket in figures.buckets]
        axes.fill_between(_times(figures), rates, step="post", color=_SOLD, alpha=0.25, lw=0)
        axes.step(_times(figures), rates, where="post", color=_SOLD)
        axes.set_ylim(bottom=0)
        return _svg(figure)


def stock_chart(figures: Figures) -> str:
    """Orders so far against the stock."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("orders so far")
        sold = list(accumulate(bucket.orders for bucket in figures.buckets))
        axes.step(_times(figures), sold, where="post", color=_SOLD, label="sold")
        stock = figures.sale.total_stock
        axes.axhline(stock, color=_LIMIT, ls="--", lw=1.2, label=f"stock: {stock:,}")
        axes.set_ylim(0, max(stock, figures.orders) * 1.08)
        axes.legend(loc="lower right")
        return _svg(figure)


def lag_chart(figures: Figures) -> str:
    """Median and 99th percentile of the time from purchase to order, over the time of the sale."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("seconds from purchase to order")
        for label, colour, lags in (
            ("99 of 100 within", _LIMIT, [bucket.lag_p99 for bucket in figures.buckets]),
            ("half within", _SOLD, [bucket.lag_median for bucket in figures.buckets]),
        ):
            axes.plot(_times(figures), _gaps(lags), color=colour, label=label)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        return _svg(figure)


def _axes(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.margins(x=0.01)
    return figure, axes


def _times(figures: Figures) -> list[Any]:
    return [bucket.begins_at for bucket in figures.buckets]


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")
