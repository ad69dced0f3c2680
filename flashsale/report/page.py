"""The page: one HTML file that needs nothing from anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jinja2 import Environment, PackageLoader, StrictUndefined

from flashsale import __version__
from flashsale.report.charts import lag_chart, pace_chart, stock_chart
from flashsale.report.figures import Figures
from flashsale.verification import Verification

_MOST_HOURS = 48


@dataclass(frozen=True)
class DeadLetters:
    """The sale's dead letters by reason; `unknown_because` says why they could not be counted."""

    by_reason: Mapping[str, int]
    unknown_because: str | None = None


def render(
    figures: Figures,
    verification: Verification,
    dead_letters: DeadLetters,
    *,
    made_at: datetime,
) -> str:
    """The page's HTML. Texts of the database are escaped."""
    environment = Environment(
        loader=PackageLoader("flashsale.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "moment": _moment,
        "moment_of": _moment_of,
        "seconds": _seconds,
    }
    charts: list[str] = []
    if figures.buckets:
        charts = [pace_chart(figures), stock_chart(figures)]
        if figures.lag:
            charts.append(lag_chart(figures))
    page: str = environment.get_template("page.html").render(
        figures=figures,
        sale=figures.sale,
        charts=charts,
        verification=verification,
        dead_letters=dead_letters,
        made_at=made_at,
        version=__version__,
        selling_seconds=_selling_seconds(figures),
    )
    return page


def _selling_seconds(figures: Figures) -> float | None:
    if figures.first_at is None or figures.last_at is None:
        return None
    return ((figures.sold_out_at or figures.last_at) - figures.first_at).total_seconds()


def _number(value: float) -> str:
    return f"{value:,}"


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%d %B %Y, %H:%M:%S UTC")


def _moment_of(value: datetime, bucket: timedelta) -> str:
    """As exact as buckets of this length need it."""
    at = value.astimezone(UTC)
    if bucket < timedelta(seconds=1):
        return f"{at:%H:%M:%S}.{at.microsecond // 100_000}"
    return f"{at:%d %B, %H:%M:%S}"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1_000:,.0f} ms"
    if value < 120:
        return f"{value:,.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if hours >= _MOST_HOURS:
        return f"{days:,} d {hours_left} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
