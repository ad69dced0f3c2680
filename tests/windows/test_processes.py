"""W22, W23, W25, W27: processes and threads that die, and processes that are told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flashsale import exit_codes
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker
from tests.windows.conftest import StartHosted, StartWorker
from tests.windows.hosted import held, wait_for_held_inserts

USERS = [f"buyer-{number}" for number in range(600)]

# Dramatiq's thread ends at what it cannot take from its queue.
LOSE_A_THREAD = """
import threading
import dramatiq
from flashsale import exit_codes
from flashsale.brokers.embedded import EmbeddedBroker
from flashsale.settings import Settings
from flashsale.worker import PurchaseWorker

worker = PurchaseWorker(Settings.from_env(), new_broker=EmbeddedBroker)
host = dramatiq.Worker(worker.broker, worker_threads=2)
host.start()
host.work_queue.put(None)
threading.Event().wait(10)
"""


def in_the_middle(shop: Shop, start_worker: StartWorker) -> RunningWorker:
    """A worker of two processes that has made some orders of many."""
    shop.slow_down(0.2)
    shop.buy(USERS)
    worker = start_worker(shop, processes=2, FLASHSALE_BATCH_SIZE="10")
    shop.wait_for_orders(20, 15)
    return worker


def finish(shop: Shop, start_worker: StartWorker) -> None:
    shop.query("ALTER TABLE orders DISABLE TRIGGER rest")
    shop.age_orders()
    worker = start_worker(shop)
    shop.wait_for_orders(len(USERS), 15)
    wait_until(lambda: len(shop.confirmations()) == len(USERS), 10, "all audit rows are written")
    worker.terminate()
    assert worker.wait(8) == 0
    shop.assert_settled(USERS)


@pytest.mark.acceptance
def test_w22_a_process_that_dies_takes_the_others_with_it_and_nothing_is_lost(
    shop: Shop, start_worker: StartWorker
) -> None:
    """Dramatiq's master stops them all, and ends with an error for its supervisor to see."""
    worker = in_the_middle(shop, start_worker)

    os.kill(worker.consumer_pids()[0], signal.SIGKILL)

    assert worker.wait(8) != 0
    assert shop.order_count() < len(USERS)
    finish(shop, start_worker)


@pytest.mark.acceptance
def test_w23_no_process_outlives_its_master(shop: Shop, start_worker: StartWorker) -> None:
    """Stock's go on unseen, beside those of the next start."""
    worker = in_the_middle(shop, start_worker)
    processes = [Path(f"/proc/{pid}/stat") for pid in worker.pids()]

    os.kill(worker.pid, signal.SIGKILL)

    def ended(process: Path) -> bool:
        try:
            return process.read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(lambda: all(map(ended, processes)), 8, "all its processes end")
    finish(shop, start_worker)


@pytest.mark.acceptance
def test_w25_a_statement_that_waits_does_not_keep_a_worker_from_ending_in_time(
    shop: Shop, start_worker: StartWorker
) -> None:
    """Stock waits ten minutes by default, and Docker kills after ten seconds."""
    worker = start_worker(
        shop, FLASHSALE_SHUTDOWN_SECONDS="2", FLASHSALE_STATEMENT_TIMEOUT_SECONDS="60"
    )
    with held(shop, "buyer"):
        shop.buy(["buyer"])
        wait_for_held_inserts(shop, 1)

        worker.terminate()

        assert worker.wait(5) == 0
        assert shop.ready(shop.purchase_queue) == 1


def test_w25_what_ends_with_the_worker_is_on_the_audit_trail(
    shop: Shop, start_hosted: StartHosted
) -> None:
    """Its last flush comes when the threads have ended, and before the process does."""
    worker = start_hosted(shop, audit_interval_seconds=60.0, audit_batch_size=10_000)
    with held(shop, "late"):
        shop.buy(["early"])
        worker.wait_for(settled=1)
        shop.buy(["late"])
        wait_for_held_inserts(shop, 1)
        assert shop.confirmations() == []

    worker.stop()

    shop.assert_settled(["early", "late"])


def test_w27_a_worker_that_has_lost_a_thread_ends_with_an_error(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOSE_A_THREAD],
        env={"DATABASE_URL": f"sqlite:///{tmp_path}/flashsale.db"},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert ended.returncode == exit_codes.STUCK
    assert "worker.stuck" in ended.stderr
