"""The tables of docs/performance.md, made anew: ``python -m benchmarks.performance``."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import click

from benchmarks.contestants import load_contestants
from benchmarks.scenarios.pages import filled, table

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RESULTS = DOCS / "performance.md", DOCS / "benchmarks"

_COMMAND = "python -m benchmarks.performance"
_RATES = (10_000, 100_000, 1_000_000)
#: Cores are planned to be busy for this share of the time.
_BUSY = 0.7
_CORES = 8
_MISSING = 3

Results = Mapping[str, Any]


@click.command()
def main() -> None:
    """Make the tables of docs/performance.md anew, from the files in docs/benchmarks.

    Exit codes: 0 done, 2 usage, 3 a file is missing: run the command that writes it.

    Example: python -m benchmarks.performance
    """
    if names := missing(RESULTS):
        click.echo(f"not measured yet: {', '.join(names)}; see make bench-full", err=True)
        sys.exit(_MISSING)
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    click.echo(f"written to {PAGE}", err=True)


def missing(results: Path) -> list[str]:
    """The measurements whose files are not in the folder `results`."""
    names = dict.fromkeys(map(_file, _TABLES))
    return [name for name in names if not (results / f"{name}.json").exists()]


def made(page: str, results: Path) -> str:
    """The page with all its tables made from the files in the folder `results`."""
    for name, lines in _TABLES.items():
        found = json.loads((results / f"{_file(name)}.json").read_text(encoding="utf-8"))
        page = filled(page, f"{_COMMAND}, {name}", lines(found))
    return page


def _file(name: str) -> str:
    return "drain" if name == "model" else name


def _measured(results: Results) -> str:
    machine, versions = results["machine"], results["versions"]
    return (
        f"Measured on {results['date'][:10]}: {machine['cpus']} cores ({machine['processor']}),"
        f" {machine['memory_gb']:.0f} GB, PostgreSQL {versions['PostgreSQL'].split()[0]},"
        f" RabbitMQ {versions['RabbitMQ']}, Python {versions['Python']}.\n"
    )


def _drain(results: Results) -> Iterator[str]:
    options = results["options"]
    yield _measured(results)
    yield (
        f"Medians of {options['rounds']} rounds with {options['processes']} processes, and in"
        " parentheses the range:\n"
    )
    measured = [each for each in results["contestants"] if "orders_per_second" in each]
    measured.sort(key=lambda each: -each["orders_per_second"]["median"])
    yield from table(
        ("Contestant", "Orders/s", "Of C", "Times plain Dramatiq", "CPU: worker", "PostgreSQL",
         "RabbitMQ", "Memory a process"),
        [
            (
                each["title"],
                f"{each['orders_per_second']['median']:,.0f}",
                _spread(each["ratio_to_c"], 2),
                f"{each['ratio_to_plain_dramatiq']['median']:.1f}",
                *(f"{us:.0f} µs" for us in _costs(each).values()),
                f"{each['peak_process_megabytes']:.0f} MB",
            )
            for each in measured
        ],
    )  # fmt: skip


def _spread(figures: Mapping[str, float], digits: int) -> str:
    middle, low, high = (f"{figures[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def _costs(contestant: Results) -> dict[str, float]:
    """Microseconds of CPU an order, by group of processes."""
    return {
        group: 1_000 * seconds
        for group, seconds in contestant["cpu_seconds_per_1000_orders"].items()
    }


def _latency(results: Results) -> Iterator[str]:
    yield f"Milliseconds; each rate was offered for {results['options']['seconds']:.0f} s:\n"
    yield from table(
        ("Events/s offered", "Half", "90 %", "99 %", "99.9 %", "Slowest"),
        [
            (
                f"{point['rate']:,.0f}{', more than fits' if point['saturated'] else ''}",
                *(f"{point[key]:,.1f}" for key in ("p50", "p90", "p99", "p999", "slowest")),
            )
            for point in results["points"]
        ],
    )


def _outage(results: Results) -> Iterator[str]:
    found, options = results["recovery"], results["options"]
    yield (
        f"After {options['outage_seconds']:.0f} s without the database, at"
        f" {options['rate']:,.0f} events/s all the while:\n"
    )
    yield from table(
        ("Backlog", "First commit", "Caught up", "Orders/s meanwhile", "Largest process"),
        [
            (
                f"{found['backlog']:,}",
                f"{found['first_commit_seconds']:.1f} s",
                f"{found['caught_up_seconds']:.1f} s",
                f"{found['orders_per_second']:,.0f}",
                f"{results['peak']['rss_mb']:.0f} MB",
            )
        ],
    )


def _decay(results: Results) -> Iterator[str]:
    options = results["options"]
    events = options["events"]
    titles = {
        "empty table": f"{events:,} events, empty tables",
        "full table": f"{events:,} events, {options['orders']:,} orders in the table",
        "long queue": f"{10 * events:,} events, empty tables",
    }
    workers = load_contestants()
    yield _measured(results)
    yield f"Medians of {options['rounds']} rounds:\n"
    drains = zip(*results["drains"], strict=True)
    yield from table(
        ("Worker", "Backlog", "Orders/s", "To its first", "Largest process"),
        [
            (
                workers[ratio["worker"]].title,
                titles[ratio["case"]],
                f"{statistics.median(each['orders_per_second'] for each in of_case):,.0f}",
                f"{ratio['ratio']:.2f}",
                f"{max(each['rss_mb'] for each in of_case):.0f} MB",
            )
            for ratio, of_case in zip(results["ratios"], drains, strict=True)
        ],
    )


def _sweep(results: Results) -> Iterator[str]:
    options, defaults = results["options"], results["options"]["defaults"]

    def rate(runs: list[Results]) -> float:
        return statistics.median(each["orders_per_second"] for each in runs)

    def told(runs: list[Results]) -> str:
        ours = statistics.median(
            each["cpu_microseconds"]["worker"] + each["cpu_microseconds"]["postgresql"]
            for each in runs
        )
        return f"{rate(runs) / usual:.2f} ({ours:.0f} µs)"

    by_setting = groupby(results["runs"], key=lambda each: each["setting"])
    swept = {setting: list(runs) for setting, runs in by_setting}
    by_default = swept.pop(None)
    usual = rate(by_default)
    yield (
        "Orders/s as a share of those with the defaults, and CPU of worker and PostgreSQL for an"
        f" order; medians of {options['rounds']} rounds, the default in bold:\n"
    )
    rows = []
    for setting, runs in swept.items():
        shares = {defaults[setting]: told(by_default)} | {
            value: told(list(of_value))
            for value, of_value in groupby(runs, key=lambda each: each["value"])
        }
        for value in sorted(shares):
            shown = f"**{value:,}**" if value == defaults[setting] else f"{value:,}"
            rows.append((f"`{setting}`", shown, shares[value]))
    yield from table(("Setting", "Value", "Rate, cost"), rows)


def _collector(results: Results) -> Iterator[str]:
    options = results["options"]
    workers = load_contestants()
    yield f"Medians of {options['rounds']} rounds, {options['events']:,} events each:\n"

    def kind(each: Results) -> tuple[str, bool]:
        return each["contestant"], each["words"] is not None

    groups = groupby(sorted(results["runs"], key=kind), key=kind)
    yield from table(
        ("Worker", "RabbitMQ", "Orders/s", "CPU: worker", "PostgreSQL", "RabbitMQ"),
        [
            (
                workers[name].title,
                f"`+hmbs {options['words']}`" if is_set else "as it comes",
                f"{statistics.median(each['orders_per_second'] for each in runs):,.0f}",
                *(
                    f"{statistics.median(each['cpu_microseconds'][who] for each in runs):.0f} µs"
                    for who in ("worker", "postgresql", "rabbitmq")
                ),
            )
            for (name, is_set), runs in ((each, list(of_kind)) for each, of_kind in groups)
        ],
    )


def _soak(results: Results) -> Iterator[str]:
    options, trends = results["options"], results["trends"]
    latency = results["latency_ms"]
    yield (
        f"{results['events']:,} purchases in {options['minutes']:.0f} minutes, each one order and"
        f" one CONFIRMED audit row; half of them within {latency['0.5']:.1f} ms, 99 % within"
        f" {latency['0.99']:.1f} ms. What each process held, in the second and in the last third of"
        " the time:\n"
    )
    units = {"rss_mb": "Memory, MB", "pss_mb": "Its own share, MB", "threads": "Threads",
             "files": "Open files", "sockets": "Sockets"}  # fmt: skip
    pids = list(dict.fromkeys(each["pid"] for each in trends))
    yield from table(
        ("Process", *units.values()),
        [
            (
                number,
                *(
                    f"{each['middle']:g} → {each['last']:g}"
                    for what in units
                    for each in trends
                    if each["pid"] == pid and each["what"] == what
                ),
            )
            for number, pid in enumerate(pids, 1)
        ],
    )


def _model(results: Results) -> Iterator[str]:
    own = next(each for each in results["contestants"] if each["name"] == "flashsale")
    costs = _costs(own)
    total = sum(costs.values())
    yield (
        f"Cores that are busy, and machines of {_CORES} cores planned at {_BUSY:.0%}, for an order"
        f" of {' + '.join(f'{us:.0f}' for us in costs.values())} = {total:.0f} µs:\n"
    )

    def asked(rate: int, microseconds: float) -> str:
        cores = rate * microseconds / 1e6
        return f"{cores:.1f} cores, {ceil(cores / (_CORES * _BUSY)):,}"

    yield from table(
        ("Orders/s", "Worker", "PostgreSQL", "RabbitMQ"),
        [(f"{rate:,}", *(asked(rate, us) for us in costs.values())) for rate in _RATES],
    )


_TABLES: dict[str, Callable[[Results], Iterator[str]]] = {
    "drain": _drain,
    "latency": _latency,
    "outage": _outage,
    "decay": _decay,
    "sweep": _sweep,
    "collector": _collector,
    "soak": _soak,
    "model": _model,
}


if __name__ == "__main__":
    main()
