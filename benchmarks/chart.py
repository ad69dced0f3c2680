"""The standings as a picture: one bar for each contestant, with the range of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .standings import Standing

_WIDTH, _LABELS, _FIGURES, _ROW, _TOP = 900, 310, 150, 34, 58
_BARS = _WIDTH - _LABELS - _FIGURES
_STYLE = """
text { font: 14px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 16px } .note { font-size: 12px; fill: #57606a }
.bar { fill: #afb8c1 } .own { fill: #0969da } .range { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #8d96a0 }
  .bar { fill: #57606a } .own { fill: #4493f8 } .range { stroke: #e6edf3 }
}
"""


def draw(standings: Sequence[Standing], title: str, note: str) -> str:
    """An SVG document. The contestant named flashsale has a colour of its own."""
    largest = max((each.orders_per_second.high for each in standings), default=1.0)
    height = _TOP + _ROW * len(standings) + 34
    rows = (
        _row(each, _TOP + _ROW * number, _BARS / largest) for number, each in enumerate(standings)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<text class="title" x="12" y="30">{escape(title)}</text>
{"".join(rows)}<text class="note" x="12" y="{height - 14}">{escape(note)}</text>
</svg>
"""


def _row(standing: Standing, top: int, scale: float) -> str:
    rate = standing.orders_per_second
    low, high, end = (
        round(_LABELS + figure * scale, 1) for figure in (rate.low, rate.high, rate.median)
    )
    middle, text = top + _ROW // 2 - 4, top + _ROW // 2 + 1
    kind = "own" if standing.contestant.name == "flashsale" else "bar"
    whiskers = f"M{low} {middle}H{high}M{low} {middle - 4}v8M{high} {middle - 4}v8"
    return f"""\
<text x="{_LABELS - 10}" y="{text}" text-anchor="end">{escape(standing.contestant.title)}</text>
<rect class="{kind}" x="{_LABELS}" y="{top + 2}" width="{end - _LABELS:.1f}"
 height="{_ROW - 12}" rx="2"/>
<path class="range" d="{whiskers}"/>
<text x="{high + 10:.1f}" y="{text}">{rate.median:,.0f} orders/s</text>
"""
