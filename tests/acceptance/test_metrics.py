"""What the exporter says of a worker, while it works, when a process is killed, and at its end."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import pytest

from tests.acceptance.conftest import StartWorker
from tests.support.exporter import START_SECONDS, Exporter, Samples, settled
from tests.support.postgres import PrivatePostgres
from tests.support.shop import Shop, with_repeats
from tests.support.waiting import wait_until

pytestmark = pytest.mark.acceptance


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def counters(samples: Samples) -> Samples:
    ends = ("_total", "_count", "_bucket", "_sum")
    return {key: value for key, value in samples.items() if key[0].endswith(ends)}


def is_conserved(samples: Samples) -> bool:
    known = settled(samples) + samples["returned_total", ()] + samples["in_flight", ()]
    return samples["deliveries_total", ()] == known and samples["conservation_error", ()] == 0


def test_the_numbers_of_all_processes_are_on_one_page_and_right_at_rest(
    shop: Shop, start_worker: StartWorker, exporter: Exporter
) -> None:
    users = [f"buyer-{number}" for number in range(9_500)]
    events = [*map(shop.event, with_repeats(users)), b"no event", b"{}", b"{}"]
    shop.publish(events)
    worker = start_worker(shop, **exporter.env)
    seen: list[Samples] = []

    def is_done() -> bool:
        seen.append(exporter.scrape())
        return bool(seen[-1]) and settled(seen[-1]) == len(events)

    wait_until(is_done, START_SECONDS, "all events show as settled")
    seen = [samples for samples in seen if samples]
    for earlier, later in pairwise(map(counters, seen)):
        assert {key for key, value in earlier.items() if later[key] < value} == set()
    assert all(map(is_conserved, seen))
    last = seen[-1]
    assert last["settled_total", ("confirmed",)] == len(users)
    assert last["settled_total", ("duplicate",)] == len(users) / 19
    assert last["dead_letters_total", ("json",)] == 1
    assert last["dead_letters_total", ("missing",)] == 2
    assert last["in_flight", ()] == 0
    assert last["processes", ("running",)] == 3
    assert last["breakers", ("closed",)] >= 1
    assert last["audit_recorded_total", ()] == len(users)
    assert 1 <= last["acknowledgements_total", ()] <= last["deliveries_total", ()]
    assert last["batch_events_sum", ()] == len(users) * 20 / 19
    assert last["event_age_seconds_count", ()] == last["batch_events_count", ()]

    def queues_are_seen() -> bool:
        levels = exporter.scrape()
        return (
            levels.get(("queue_messages", ("purchase",))) == 0
            and levels.get(("queue_messages", ("dead_letter",))) == 3
            and levels.get(("queue_consumers", ("purchase",))) == 3
        )

    wait_until(queues_are_seen, 10, "the depth of both queues is told")
    wait_until(
        lambda: exporter.scrape()["audit_written_total", ()] == len(users), 10, "the trail shows"
    )
    assert exporter.get("/livez") == exporter.get("/readyz") == (200, "ok\n")
    worker.terminate()
    assert worker.wait(5) == 0


def test_a_killed_process_shows_and_its_deliveries_count_as_returned(
    shop: Shop, start_worker: StartWorker, exporter: Exporter
) -> None:
    """Until Dramatiq's master, which ends with any of its processes, has stopped the others."""
    shop.slow_down(0.5)  # so that the others take a moment to stop
    worker = start_worker(shop, **exporter.env)
    exporter.wait_until_ready()
    shop.buy(f"buyer-{number}" for number in range(4_000))
    wait_until(lambda: exporter.scrape()["in_flight", ()] > 0, 10, "deliveries are in flight")
    before = exporter.scrape()
    os.kill(worker.consumer_pids()[0], signal.SIGKILL)
    seen = []

    def shows() -> bool:
        seen.append(exporter.scrape())
        return bool(seen[-1]) and seen[-1]["processes", ("gone",)] == 1

    wait_until(shows, 10, "a process shows as gone")
    gone = seen[-1]
    assert is_conserved(gone)
    assert {key for key, value in counters(before).items() if gone[key] < value} == set()
    status, why = exporter.get("/livez")
    assert status in {503, 0}
    assert "has ended without a stop" in why or status == 0
    worker.wait(10)


def test_an_outage_of_the_database_is_no_reason_for_a_restart(
    mortal_postgres_shop: Shop,
    mortal_postgres: PrivatePostgres,
    start_worker: StartWorker,
    exporter: Exporter,
) -> None:
    worker = start_worker(mortal_postgres_shop, **exporter.env)
    exporter.wait_until_ready()
    mortal_postgres.crash()
    try:
        mortal_postgres_shop.buy(["one"])
        wait_until(lambda: exporter.get("/readyz")[0] == 503, 20, "the worker is not ready")
        assert "waits for the database" in exporter.get("/readyz")[1]
        assert exporter.get("/livez") == (200, "ok\n")
        samples = exporter.scrape()
        assert samples["breakers", ("open",)] >= 1
        assert samples["database_outage_seconds_total", ()] > 0
        faults = [value for (name, _), value in samples.items() if name == "database_faults_total"]
        assert sum(faults) > 0
    finally:
        mortal_postgres.start()
    exporter.wait_until_ready()
    worker.terminate()
    assert worker.wait(5) == 0


def test_a_process_that_stands_still_is_not_alive(
    shop: Shop, start_worker: StartWorker, exporter: Exporter
) -> None:
    worker = start_worker(shop, **exporter.env)
    exporter.wait_until_ready()
    still = worker.consumer_pids()[1]
    os.kill(still, signal.SIGSTOP)
    try:
        wait_until(lambda: exporter.get("/livez")[0] == 503, 30, "the standstill is noticed")
        assert f"process {still} has not moved" in exporter.get("/livez")[1]
        assert exporter.scrape()["processes", ("stalled",)] == 1
    finally:
        os.kill(still, signal.SIGCONT)
    wait_until(lambda: exporter.get("/livez")[0] == 200, 5, "it moves again")


def test_a_reload_in_which_a_process_was_cut_off_leaves_the_probes_green(
    shop: Shop, start_worker: StartWorker, exporter: Exporter
) -> None:
    """SIGHUP keeps the master, and with it the folder in which the end of that process stands."""
    worker = start_worker(shop, **exporter.env)
    exporter.wait_until_ready()
    shop.buy(["one"])
    wait_until(
        lambda: exporter.scrape()["settled_total", ("confirmed",)] == 1, 10, "an order is counted"
    )
    before = set(worker.consumer_pids())
    cut_off = min(before)
    os.kill(cut_off, signal.SIGSTOP)  # or it would stop in order

    os.kill(worker.pid, signal.SIGHUP)
    os.kill(cut_off, signal.SIGKILL)

    worker.wait_for_log("worker.started", START_SECONDS, lines=6)
    exporter.wait_until_ready()
    assert exporter.get("/livez") == (200, "ok\n")
    assert before.isdisjoint(worker.consumer_pids())
    samples = exporter.scrape()
    assert samples["processes", ("gone",)] == 0
    assert 0 < samples["shutdown_seconds", ()] < 5  # of those that were not cut off
    assert samples["settled_total", ("confirmed",)] == 1  # what was counted before goes on
    assert is_conserved(samples)


def test_a_taken_port_is_told_and_harms_nothing_and_is_used_when_it_is_free(
    shop: Shop, start_worker: StartWorker, exporter: Exporter
) -> None:
    """As when a worker is started while the one that it replaces still stops."""
    first = start_worker(shop, **exporter.env)
    exporter.wait_until_ready()
    second = start_worker(shop, **exporter.env)
    (line,) = second.wait_for_log("metrics.unserved", START_SECONDS)
    assert line["port"] == exporter.port
    shop.buy(["one"])
    shop.wait_for_orders(1, 10)

    first.terminate()
    assert first.wait(5) == 0
    second.wait_for_log("metrics.serving", 10)
    exporter.wait_until_ready()
    assert len(second.logged("metrics.unserved")) == 1


def test_nothing_listens_where_it_is_turned_off(shop: Shop, start_worker: StartWorker) -> None:
    worker = start_worker(shop)
    worker.wait_for_log("broker.connected", START_SECONDS, lines=3)

    assert len(worker.pids()) == 1 + 3
    assert "ForkProcess" not in worker.log()
