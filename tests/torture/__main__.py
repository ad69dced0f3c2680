"""``python -m tests.torture``: rounds of torture until the time is up, and then the table."""

# ruff: noqa: T201  (this is a command: it prints)

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import tests.torture.scenarios  # noqa: F401  # enters all scenarios
from tests.torture.harness import Report, run_round
from tests.torture.scenario import SCENARIOS, Scenario
from tests.torture.stage import Stage

#: Faults that no scenario makes, with the reason.
NOT_MADE = {
    "F35": "a soak is this very command with --minutes 480",
}

_COLUMNS = ("scenario", "rounds", "confirmed", "lost", "unexpected", "audit", "median", "worst")
_ROW = "{:<22} {:>6} {:>9} {:>5} {:>10} {:>6} {:>7} {:>7}  {}"


def main() -> int:
    """Run what the command line asks for; the exit code is 1 where a promise was broken."""
    options = _options()
    every = sorted(SCENARIOS, key=lambda scenario: int(scenario.fault.removeprefix("F")))
    chosen = [scenario for scenario in every if _is_named(scenario, options.only)]
    if options.list:
        return _list(chosen)
    if not chosen:
        print(f"no scenario is named {options.only}: see --list", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    able = [s for s in chosen if not s.missing()]
    reports: list[Report] = []
    with Stage() as stage:
        for scenario, round_seed in _plan(able, seed, options.rounds, options.minutes):
            report = run_round(stage, scenario, round_seed)
            reports.append(report)
            say(report, verbose=options.verbose)
    _print_table(chosen, reports)
    if options.json:
        Path(options.json).write_text(json.dumps([_as_json(r) for r in reports], indent=1) + "\n")
    return int(any(r.problems and not r.scenario.known_failing for r in reports))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="start no round after this time")
    parser.add_argument("--only", help="faults or scenarios, like F1,F3.after-commit")
    parser.add_argument("--seed", type=int, help="of the first round of each scenario")
    parser.add_argument("--rounds", type=int, help="at most so many rounds of each scenario")
    parser.add_argument("--list", action="store_true", help="list the scenarios and run none")
    parser.add_argument("--json", metavar="FILE", help="write each round's figures there")
    parser.add_argument("--verbose", action="store_true", help="show the log of failing rounds")
    return parser.parse_args()


def _is_named(scenario: Scenario, only: str | None) -> bool:
    return only is None or bool({scenario.name, scenario.fault} & set(only.split(",")))


def _plan(
    scenarios: Sequence[Scenario], seed: int, rounds: int | None, minutes: float
) -> Iterator[tuple[Scenario, int]]:
    """Each scenario once, in random order, and then again with the next seed."""
    until = time.monotonic() + 60 * minutes
    number = 0
    while scenarios and (rounds is None or number < rounds):
        for scenario in random.Random(seed + number).sample(scenarios, len(scenarios)):
            if time.monotonic() >= until:
                return
            yield scenario, seed + number
        number += 1


def say(report: Report, *, verbose: bool) -> None:
    """One line for a round, and for a failing one how to repeat it."""
    scenario, verdict = report.scenario, report.verdict
    outcome = "ok" if not report.problems else "known" if scenario.known_failing else "FAILED"
    recoveries = " ".join(f"{seconds:.1f}" for seconds in report.recoveries)
    print(
        f"{outcome:<6} {scenario.name:<22} seed {report.seed:<8} {report.seconds:5.1f} s,"
        f" confirmed {verdict.confirmed}, duplicates {verdict.duplicates}, dead letters"
        f" {verdict.dead_letters} ({verdict.double_letters} double), FAILED_DB {verdict.failed_db},"
        f" restarts {report.restarts}, reconciled {report.reconciled}, back after {recoveries} s",
        file=sys.stderr,
    )
    for problem in report.problems:
        print(f"       {problem}", file=sys.stderr)
    if report.problems:
        command = f"python -m tests.torture --only {scenario.name} --seed {report.seed} --rounds 1"
        print(f"       repeat: {command}", file=sys.stderr)
        if verbose:
            print(report.log_tail, file=sys.stderr)


def _print_table(chosen: Sequence[Scenario], reports: Sequence[Report]) -> None:
    print(_ROW.format(*_COLUMNS, ""))
    for scenario in chosen:
        its = [report for report in reports if report.scenario is scenario]
        print(_ROW.format(scenario.name, len(its), *_figures(its), _note(scenario, its)))
    for fault, reason in NOT_MADE.items():
        print(f"{fault:<22} not made: {reason}")
    verdicts = [report.verdict for report in reports]
    print(
        f"{len(reports)} rounds, {sum(v.confirmed for v in verdicts)} confirmed events,"
        f" {sum(len(v.lost) for v in verdicts)} lost,"
        f" {sum(len(v.unexpected) + len(v.double_orders) for v in verdicts)} unexpected orders,"
        f" {sum(_audit_faults(r) for r in reports)} audit rows missing or double"
    )


def _figures(its: Sequence[Report]) -> tuple[object, ...]:
    recoveries = [seconds for report in its for seconds in report.recoveries]
    return (
        sum(report.verdict.confirmed for report in its),
        sum(len(report.verdict.lost) for report in its),
        sum(len(report.verdict.unexpected) + len(report.verdict.double_orders) for report in its),
        sum(_audit_faults(report) for report in its),
        f"{statistics.median(recoveries):.2f}" if recoveries else "-",
        f"{max(recoveries):.2f}" if recoveries else "-",
    )


def _audit_faults(report: Report) -> int:
    verdict = report.verdict
    return len(verdict.audit_missing) + len(verdict.audit_double) + len(verdict.audit_wrong)


def _note(scenario: Scenario, its: Sequence[Report]) -> str:
    if reason := scenario.missing():
        return f"not made here: {reason}"
    failed = sum(bool(report.problems) for report in its)
    if scenario.known_failing:
        state = f"fails {failed} of {len(its)}" if failed else "passes now"
        return f"known gap ({state}): {scenario.known_failing}"
    return f"FAILED {failed} of {len(its)}" if failed else ""


def _as_json(report: Report) -> dict[str, object]:
    verdict = report.verdict
    return {
        "scenario": report.scenario.name,
        "seed": report.seed,
        "seconds": round(report.seconds, 2),
        "confirmed": verdict.confirmed,
        "lost": len(verdict.lost),
        "unexpected": len(verdict.unexpected) + len(verdict.double_orders),
        "audit_faults": _audit_faults(report),
        "duplicates": verdict.duplicates,
        "dead_letters": verdict.dead_letters,
        "double_letters": verdict.double_letters,
        "failed_db": verdict.failed_db,
        "reconciled": report.reconciled,
        "restarts": report.restarts,
        "recoveries": [round(seconds, 3) for seconds in report.recoveries],
        "problems": report.problems,
        "known_failing": report.scenario.known_failing,
    }


def _list(chosen: Sequence[Scenario]) -> int:
    for scenario in chosen:
        note = _note(scenario, ())
        print(f"{scenario.name:<22} {scenario.what}{f' [{note}]' if note else ''}")
    for fault, reason in NOT_MADE.items():
        print(f"{fault:<22} not made: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
