"""The benchmark's arithmetic, and what it lets count."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import backlog_of
from benchmarks.chart import draw
from benchmarks.contestants import Contestant, load_contestants
from benchmarks.race import Run
from benchmarks.stage import Result
from benchmarks.standings import Standing, ranking
from benchmarks.usage import interpolate

RIGHT = Result(orders=10, audit_rows=10, complete=10, unsettled=0)


def standing(name: str, **rates: float) -> Standing:
    """A contestant with a run of each of these rates: ``r1=…`` is that of round 1."""
    result = Standing(Contestant(name, title=name, command=["true"]))
    for round_, rate in rates.items():
        cpu = {"worker": rate / 100, "postgresql": 30.0, "rabbitmq": 20.0}
        result.runs[int(round_[1:])] = Run(
            name, 1_000, 3, rate, 1.0, cpu, peak_process_bytes=int(rate), peak_total_bytes=99
        )
    return result


def test_a_standing_tells_the_median_and_the_range_of_its_runs() -> None:
    figures = standing("ours", r1=900.0, r2=100.0, r3=500.0)

    assert figures.orders_per_second == (500.0, 100.0, 900.0)
    assert figures.cpu_microseconds("worker") == 5.0
    assert figures.peak_process_bytes == 900


def test_a_ratio_compares_runs_of_the_same_round_only() -> None:
    # The machine became slower by half after round 1, for both.
    ours = standing("ours", r1=800.0, r2=400.0, r3=450.0)
    c = standing("c", r1=1_000.0, r2=500.0)

    assert ours.ratio_to(c) == (pytest.approx(0.8),) * 3


def test_there_is_no_ratio_to_one_that_shares_no_round() -> None:
    assert standing("ours", r1=1.0).ratio_to(standing("c", r2=1.0)) is None
    assert standing("ours", r1=1.0).ratio_to(None) is None


def test_the_fastest_is_first_and_one_without_a_run_that_counts_has_no_rank() -> None:
    refused = Standing(Contestant("refused", "refused", ["true"]), refusals={1: "wrong tables"})
    slow, fast = standing("slow", r1=1.0), standing("fast", r1=2.0)

    everyone = {each.contestant.name: each for each in (slow, refused, fast)}

    assert ranking(everyone) == [fast, slow]
    assert refused.as_json(everyone, {})["refusals"] == [{"round": 1, "reason": "wrong tables"}]


def test_the_document_has_ratios_medians_and_every_single_run() -> None:
    ours, c = standing("ours", r1=700.0, r2=720.0), standing("c", r1=1_000.0, r2=1_000.0)

    document = ours.as_json({"c": c, "ours": ours}, {"ratio_to_c": "c", "ratio_to_none": "none"})

    assert document["ratio_to_c"] == {"median": 0.71, "low": 0.7, "high": 0.72}
    assert document["ratio_to_none"] is None
    assert document["cpu_seconds_per_1000_orders"]["postgresql"] == 0.03
    assert [run["orders_per_second"] for run in document["runs"]] == [700.0, 720.0]


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (RIGHT._replace(orders=9), "9 orders, not 10"),
        (RIGHT._replace(orders=11), "11 orders, not 10"),
        (RIGHT._replace(audit_rows=11), "11 audit rows, not 10"),
        (RIGHT._replace(complete=9), "9 events with an order and its CONFIRMED audit row, not 10"),
        (RIGHT._replace(unsettled=1), "1 messages not acknowledged, not 0"),
    ],
)
def test_any_count_that_is_not_exactly_right_is_a_fault(result: Result, fault: str) -> None:
    assert RIGHT.faults(10) == []
    assert result.faults(10) == [fault]


def test_a_slow_contestant_gets_the_backlog_that_it_takes_in_the_time() -> None:
    slow = Contestant("slow", "slow", ["true"], pace=1_800)

    assert backlog_of(slow, 100_000, seconds=30) == 54_000
    assert backlog_of(slow, 20_000, seconds=30) == 20_000
    assert backlog_of(Contestant("fast", "fast", ["true"]), 100_000, seconds=30) == 100_000


def test_what_lies_between_two_looks_is_interpolated() -> None:
    times, values = [1.0, 3.0, 4.0], [10.0, 14.0, 20.0]

    moments = (0.0, 1.0, 2.0, 3.0, 3.5, 4.0, 9.0)

    assert [interpolate(times, values, m) for m in moments] == [10, 10, 12, 14, 17, 20, 20]


@pytest.mark.parametrize("contestant", load_contestants().values(), ids=lambda each: each.name)
def test_each_contestant_can_be_started_with_any_number_of_processes(
    contestant: Contestant,
) -> None:
    assert "2" in contestant.argv(2)
    assert not any("{" in word for word in contestant.argv(2))


@pytest.mark.parametrize("contestant", load_contestants().values(), ids=lambda each: each.name)
def test_each_contestants_dependencies_are_pinned(contestant: Contestant) -> None:
    assert all("==" in line for line in contestant.requirements())


def test_the_chart_has_a_bar_for_each_and_escapes_their_names() -> None:
    picture = draw([standing("flashsale", r1=2.0), standing("<b>", r1=1.0)], "title", "note")

    assert picture.count("<rect") == 2
    assert "<b>" not in picture
    assert "&lt;b&gt;" in picture
