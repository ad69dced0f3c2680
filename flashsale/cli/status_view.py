"""How a status is shown to people: by `flashsale status` once, by `flashsale top` with its past."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import starmap
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flashsale.brokers.topology import Depth
from flashsale.errors import FlashsaleError
from flashsale.status import Status
from flashsale.status.broker import BrokerStatus
from flashsale.status.database import ORDERS, WINDOW_SECONDS
from flashsale.status.workers import ProcessStatus

_UNKNOWN = "?"
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.:-=+*#"
_PAST = 40
# What the other columns take of a line: the names, the numbers, and details that can be read.
_BESIDE_THE_PAST = 64
_LEAST_PAST = 8
_GOOD, _BAD, _QUIET = "green", "bold red", "dim"


class Line(NamedTuple):
    """One measure: its number, None while it is not known, and the same for people."""

    name: str
    number: float | None
    value: Text
    details: Text


class Past:
    """The last numbers of each measure, for its sparkline."""

    def __init__(self) -> None:
        self._numbers: dict[str, deque[float | None]] = {}

    def add(self, status: Status) -> None:
        for line in lines(status):
            self._numbers.setdefault(line.name, deque(maxlen=_PAST)).append(line.number)

    def sparkline(self, name: str, width: int = _PAST, *, plain: bool) -> str:
        """The last numbers as bars from 0 to their greatest, a blank where there was none."""
        numbers = list(self._numbers.get(name, ()))[-width:]
        bars = _PLAIN_BARS if plain else _BARS
        greatest = max((number for number in numbers if number is not None), default=0) or 1
        return "".join(
            " " if number is None else bars[round(number / greatest * (len(bars) - 1))]
            for number in numbers
        )


def view(
    status: Status, past: Past | None = None, *, width: int = 0, plain: bool = False
) -> RenderableType:
    """The status as tables; with `past`, each measure has its sparkline. `plain` is ASCII.

    On a terminal of `width` columns the sparklines leave room to read the rest.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", min_width=9, no_wrap=True)
    looks = min(_PAST, width - _BESIDE_THE_PAST)
    if past is None or looks < _LEAST_PAST:
        past = None
    else:
        table.add_column(width=looks, no_wrap=True, style="cyan", justify="right")
    table.add_column(overflow="fold")
    for line in lines(status):
        spark = [past.sparkline(line.name, looks, plain=plain)] if past is not None else []
        table.add_row(line.name, line.value, *spark, line.details)
    return Group(table, "", _processes(status))


def lines(status: Status) -> Iterator[Line]:
    """The measures, in the order they are shown."""
    yield from _queue_lines(status)
    yield from _order_lines(status)
    lag = status.workers.lag_seconds
    if lag is None:
        yield Line("lag", None, Text(_UNKNOWN), _quiet("no event was done here within a minute"))
    else:
        yield Line("lag", lag, Text(duration(lag)), Text("from purchase to order"))


def duration(seconds: float) -> str:
    """A time span as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def _queue_lines(status: Status) -> Iterator[Line]:
    if status.broker is None:
        yield _away("purchases", status.broker_error)
        yield _away("dead letters", status.broker_error, repeated=True)
        return
    purchases, letters = status.broker.purchases, status.broker.dead_letters
    oldest = status.oldest_seconds_at_most
    queues = status.broker.queues
    where = f"{len(queues)} queues" if len(queues) > 1 else ", ".join(queues)
    each = " each at least" if len(queues) > 1 else ""
    details = Text.assemble(
        f"wait in {where}, ",
        (f"{purchases.consumers:,} consumers{each}", "" if purchases.consumers else _BAD),
        f", {status.workers.in_flight:,} in flight here",
    )
    if purchases.ready:
        age = _UNKNOWN if oldest is None else f"{duration(oldest)} at most"
        details.append(f", oldest: {age}")
    yield Line("purchases", purchases.ready, Text(f"{purchases.ready:,}"), details)
    if len(queues) > 1:
        yield from starmap(_queue_line, queues.items())
    yield Line(
        "dead letters",
        letters.ready,
        Text(f"{letters.ready:,}", _BAD if letters.ready else _GOOD),
        Text(f"in {status.dead_letter_queue}{_reasons(status.broker)}"),
    )


def _queue_line(queue: str, depth: Depth | None) -> Line:
    if depth is None:
        why = Text("does not exist, or is not to be used: see `flashsale doctor`", _BAD)
        return Line(f"  {queue}", None, Text(_UNKNOWN, _BAD), why)
    consumers = Text(f"{depth.consumers:,} consumers", "" if depth.consumers else _BAD)
    return Line(f"  {queue}", depth.ready, Text(f"{depth.ready:,}"), consumers)


def _reasons(broker: BrokerStatus) -> str:
    reasons = broker.reasons
    if reasons.problem is not None:
        return f"; their reasons are not known: {reasons.problem}"
    if not reasons.counts:
        return ""
    by_count = sorted(reasons.counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{count:,} {reason}" for reason, count in by_count)
    return f": {named}" + (
        f" (of {reasons.seen:,} looked at)" if reasons.seen < broker.dead_letters.ready else ""
    )


def _order_lines(status: Status) -> Iterator[Line]:
    database, rows = status.database, status.workers.audit_rows
    if database is None:
        yield _away("orders", status.database_error)
        yield _away("audit", status.database_error, repeated=True)
        return
    last = database.last_order_age_seconds
    yield Line(
        "orders",
        database.orders_per_second,
        Text(f"{database.orders_per_second:,.0f}/s"),
        Text(
            f"over {WINDOW_SECONDS} s, "
            + ("none so far" if last is None else f"the last one {duration(last)} ago")
        ),
    )
    details = Text.assemble(
        f"rows wait for their flush here, {database.unaudited:,} of the newest {ORDERS:,} orders"
        " lack theirs",
        ("; run `flashsale audit reconcile`", _BAD) if database.unaudited else "",
    )
    yield Line("audit", rows, Text(f"{rows:,}"), details)


def _away(name: str, error: FlashsaleError | None, *, repeated: bool = False) -> Line:
    details = _quiet("likewise") if repeated else Text(str(error), _BAD)
    return Line(name, None, Text(_UNKNOWN, _BAD), details)


def _processes(status: Status) -> RenderableType:
    processes = status.workers.processes
    if not processes:
        return _quiet(
            "no worker has reported on this machine to FLASHSALE_STATE_FOLDER; those of others are"
            " among the consumers"
        )
    table = Table(box=None, pad_edge=False, header_style=_QUIET)
    table.add_column("process", justify="right")
    table.add_column("state")
    table.add_column("consumes")
    table.add_column("breaker")
    table.add_column("in flight", justify="right")
    for process in processes:
        table.add_row(
            str(process.pid),
            _state(process),
            Text("yes", _GOOD) if process.is_consuming else Text("no", _BAD),
            Text(process.breaker, _BAD if process.breaker == "open" else _GOOD),
            f"{process.in_flight:,}",
        )
    return table


def _state(process: ProcessStatus) -> Text:
    if process.symptom is not None:
        return Text(f"{process.state}: {process.symptom}", _BAD)
    return Text(process.state, _GOOD if process.state == "running" else _BAD)


def _quiet(text: str) -> Text:
    return Text(text, _QUIET)
