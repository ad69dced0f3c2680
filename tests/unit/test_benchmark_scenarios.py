"""What the scenarios of the benchmark conclude from what they have measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.scenarios.backlog import recovery
from benchmarks.scenarios.footprint import Footprint
from benchmarks.scenarios.load import Offered, purchases, user
from benchmarks.scenarios.trend import trends
from flashsale.purchases import Purchase

OFFERED = Offered(
    events=1_000, rate=10.0, started_at=0.0, ended_at=100.0, latest_seconds=0.0, cpu_seconds=0.0
)


def footprint(at: float, *, pid: int = 1, rss_mb: float = 50.0, sockets: int = 7) -> Footprint:
    return Footprint(at, pid, rss_mb, 40.0, 16, 20, sockets)


def flat(taken: list[Footprint]) -> dict[str, bool]:
    return {trend.what: trend.is_flat for trend in trends(taken)}


def test_the_load_consists_of_purchases_of_different_users() -> None:
    sale_id = "0b5a4a2f-8f0e-4f5e-9a3b-3f6f6f1c2d3e"

    bodies = list(purchases(sale_id, 5, 2_000))

    found = [Purchase.parse(body) for body in bodies]
    assert {each.sale_id for each in found} == {sale_id}
    assert [each.user_id for each in found] == [user(number) for number in range(5, 2_000)]
    assert len({json.loads(body)["userId"] for body in bodies}) == len(bodies)


def test_a_backlog_is_gone_when_less_waits_than_half_a_second_brings() -> None:
    # Ten a second: 200 by second 20, when the database goes for 20 s; then 40 a second.
    before = [number / 10 for number in range(200)]
    after = [40.0 + number / 40 for number in range(1, 801)]

    found = recovery(OFFERED, before + after, back_at=40.0)

    assert found.backlog == 200
    assert found.first_commit_seconds == pytest.approx(0.02, abs=0.01)
    # 200 wait, and 30 a second are made up for: until 5 are left, that is 195 / 30 s.
    assert found.caught_up_seconds == pytest.approx(6.5, abs=0.1)
    assert found.orders_per_second == pytest.approx(40, abs=1)


def test_what_does_not_grow_is_flat() -> None:
    assert all(flat([footprint(at) for at in range(30)]).values())


def test_memory_that_grows_all_the_time_is_not_flat() -> None:
    taken = [footprint(at, rss_mb=50 + at / 10) for at in range(60)]

    assert not flat(taken)["rss_mb"]
    assert flat(taken)["pss_mb"]


def test_memory_that_grew_while_all_was_cold_is_flat() -> None:
    assert flat([footprint(at, rss_mb=min(30 + at, 50)) for at in range(60)])["rss_mb"]


def test_one_socket_more_at_the_end_is_not_flat() -> None:
    taken = [footprint(at, sockets=7 + (at > 50)) for at in range(60)]

    assert not flat(taken)["sockets"]


def test_a_worker_whose_processes_are_replaced_has_no_trend() -> None:
    taken = [footprint(at, pid=1 + (at > 30)) for at in range(60)] + [
        footprint(at, pid=3) for at in range(60)
    ]

    with pytest.raises(ValueError, match="throughout"):
        trends(taken)
