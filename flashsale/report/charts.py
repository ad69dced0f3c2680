"""The report's charts, as SVG to be set into the page, which has their figures in a table too."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate, pairwise

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from flashsale.report.figures import Figures

# Every piece of ink has this colour in matplotlib and the text's in the page, light or dark.
_INK = "#010203"
_SOLD = "#2f7ed8"
_LIMIT = "#d9534f"
#: In seconds, the longest first.
_UNITS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
# For axes by years, months, days, hours, minutes and seconds: in full, for those who read no clock
# by its seconds alone; where the next greater begins; and once for the whole axis.
_TIMES = ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
_TIMES_AT_ZERO = ["", "%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M:%S"]
_BESIDE_THE_TIMES = ["UTC", "UTC", "UTC", *["%d %B %Y, UTC"] * 3]
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
        figure, axes = _axes(figures, "orders per second")
        rates = [bucket.orders / figures.bucket.total_seconds() for bucket in figures.buckets]
        axes.stairs(rates, _edges(figures), fill=True, color=_SOLD, alpha=0.25, lw=0)
        axes.stairs(rates, _edges(figures), color=_SOLD, lw=1.5)
        axes.set_ylim(bottom=0)
        return _svg(figure)


def stock_chart(figures: Figures) -> str:
    """Orders so far against the stock."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(figures, "orders so far")
        sold = list(accumulate((bucket.orders for bucket in figures.buckets), initial=0))
        stock = figures.sale.total_stock
        axes.axhline(stock, color=_LIMIT, ls="--", lw=1.2, label=f"stock: {stock:,}")
        axes.plot(_edges(figures), sold, color=_SOLD, label=f"sold: {figures.orders:,}")
        axes.set_ylim(0, max(stock, figures.orders) * 1.08)
        axes.legend(loc="lower right")
        return _svg(figure)


def lag_chart(figures: Figures) -> str:
    """Median and 99th percentile of the time from purchase to order, over the time of the sale."""
    with mpl.rc_context(_STYLE):
        longest = max((bucket.lag_p99 or 0.0 for bucket in figures.buckets), default=0.0)
        unit = next((each for each in _UNITS if longest >= 2 * _UNITS[each]), "seconds")
        figure, axes = _axes(figures, f"{unit} from purchase to order")
        edges = _edges(figures)
        middles = [sum(pair) / 2 for pair in pairwise(edges)]
        for label, colour, lags in (
            ("99 of 100 within", _LIMIT, [bucket.lag_p99 for bucket in figures.buckets]),
            ("half within", _SOLD, [bucket.lag_median for bucket in figures.buckets]),
        ):
            # A line breaks where nothing was sold; a point between two breaks has none to be on.
            alone = [at for at in range(len(lags)) if _is_alone(lags, at)]
            shown = [math.nan if lag is None else lag / _UNITS[unit] for lag in lags]
            axes.plot(middles, shown, color=colour, label=label)
            axes.plot([middles[at] for at in alone], [shown[at] for at in alone], ".", color=colour)
        axes.set_ylim(0, 1.1 * longest / _UNITS[unit] or 1)
        axes.legend(loc="upper right")
        return _svg(figure)


def _axes(figures: Figures, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(
            locator, formats=_TIMES, zero_formats=_TIMES_AT_ZERO, offset_formats=_BESIDE_THE_TIMES
        )
    )
    edges = _edges(figures)
    axes.set_xlim(edges[0], edges[-1])
    return figure, axes


def _edges(figures: Figures) -> list[float]:
    """Where each bucket begins, and the last one ends, in matplotlib's days."""
    begin, width = float(date2num(figures.first_at)), figures.bucket / timedelta(days=1)
    return [begin + place * width for place in range(len(figures.buckets) + 1)]


def _is_alone(lags: Sequence[float | None], at: int) -> bool:
    before, after = lags[at - 1] if at else None, lags[at + 1] if at + 1 < len(lags) else None
    return lags[at] is not None and before is None and after is None


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")
