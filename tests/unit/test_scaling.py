"""The arithmetic of docs/scaling.md, and its tables, which are made from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import benchmarks.scaling
from benchmarks.scaling import DRAIN, PAGE, SCALING, filled, main
from benchmarks.scenarios.cells import BUSY, Costs, Story, play, stories

SECONDS = 60.0


def drain(**of_flashsale: Any) -> dict[str, Any]:
    contestants = [{"name": "c"}, {"name": "flashsale", **of_flashsale}]
    return {"machine": {"cpus": 2}, "contestants": contestants}


MEASURED = drain(
    orders_per_second={"median": 15_000.0},
    cpu_seconds_per_1000_orders={"worker": 0.03, "postgresql": 0.05, "rabbitmq": 0.02},
)
BYTES = {"bytes_per_order": {"wal_bytes": 1_200, "stored_bytes": 600, "event_bytes": 114}}
COSTS = Costs.of(MEASURED, BYTES)


def test_cores_are_rate_times_cost() -> None:
    assert COSTS.cores_for(1_000_000) == pytest.approx(
        {"worker": 30, "postgresql": 50, "rabbitmq": 20}
    )
    assert COSTS.cell_of(10) == pytest.approx(BUSY * 200_000)


def test_a_queue_is_asked_for_no_more_than_one_was_seen_to_carry() -> None:
    assert COSTS.queues_for(BUSY * 15_000) == 1
    assert COSTS.queues_for(BUSY * 15_000 + 1) == 2


def test_nothing_is_reckoned_from_a_run_that_does_not_count() -> None:
    with pytest.raises(ValueError, match="no run that counts"):
        Costs.of(drain(refusals=["wrong tables"]), {})


def test_cells_with_room_let_nobody_wait() -> None:
    even = Story("evenly", [1.0] * 10)

    played = play(even, rate=60_000, seconds=SECONDS, capacity=10_000, seed=1)

    assert played.busiest == pytest.approx(0.6)
    assert played.longest_wait == 0


def test_a_cell_that_gets_double_its_rate_is_as_long_behind_as_the_sale_lasts() -> None:
    played = play(Story("one", [1.0, 0.0]), 20_000, SECONDS, capacity=10_000, seed=1)

    assert played.longest_wait == pytest.approx(SECONDS, rel=0.01)
    assert played.median_wait == pytest.approx(SECONDS / 2, rel=0.01)


def test_an_outage_is_waited_for_by_those_who_came_in_it_and_by_no_other_cell() -> None:
    away = Story("away", [1.0] * 200, outage_seconds=10.0)

    played = play(away, rate=200_000, seconds=SECONDS, capacity=2_000, seed=1)

    assert played.longest_wait == pytest.approx(10.0, abs=0.2)
    assert played.p99_wait == 0


def test_the_same_seed_tells_the_same_stories() -> None:
    assert stories(20, seed=7) == stories(20, seed=7)
    assert stories(20, seed=7) != stories(20, seed=8)


def test_the_command_makes_the_tables_and_says_what_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DRAIN", "SCALING", "PAGE"):
        monkeypatch.setattr(benchmarks.scaling, name, tmp_path / name)
    (tmp_path / "SCALING").write_text(json.dumps(BYTES))
    (tmp_path / "PAGE").write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")

    without = CliRunner().invoke(main, ["--page-only"])
    (tmp_path / "DRAIN").write_text(json.dumps(MEASURED))
    made = CliRunner().invoke(main, ["--page-only"])

    assert (without.exit_code, made.exit_code) == (3, 0)
    assert "run python -m benchmarks" in without.output
    page = (tmp_path / "PAGE").read_text(encoding="utf-8")
    assert "| 1,000,000 | 30.0 | 50.0 | 20.0 | 60.0 | 233 | 112 | 1,200 MB/s |" in page
    assert filled(page, tmp_path / "DRAIN", tmp_path / "SCALING") == page


def test_the_tables_of_the_page_are_those_of_the_measurements() -> None:
    """`python -m benchmarks.scaling --page-only` makes them anew."""
    page = PAGE.read_text(encoding="utf-8")

    assert filled(page, DRAIN, SCALING) == page
