"""A worker process's beginning and end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Queue
from types import SimpleNamespace

import dramatiq
import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import flashsale.worker
from flashsale import exit_codes
from flashsale.audit_rows import AuditEntry, now
from flashsale.batching import Limits
from flashsale.brokers.embedded import EmbeddedBroker
from flashsale.database import CONNECT_TIMEOUT_SECONDS
from flashsale.ids import new_order_ids
from flashsale.schedule import SizeTrigger
from flashsale.settings import Settings
from flashsale.suspects import Suspects
from flashsale.urls import parse_database_url
from flashsale.worker import PurchaseWorker
from tests.support.embedded import running
from tests.support.ports import free_port
from tests.support.stores import Store, open_store, purchases_of
from tests.support.waiting import wait_until

CYCLES = 50
THREADS_END_SECONDS = 5.0
ACCOUNT = ("delivered", "settled", "dead_lettered", "returned", "open", "audit_unwritten")
# What an import must not have done: started a thread, opened a socket or a file of its own.
IMPORT = """
import json, os, pathlib, threading
import flashsale.actors
def target(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return ""  # the descriptor of the listing itself
opened = [target(name) for name in os.listdir("/proc/self/fd")]
print(json.dumps({
    "threads": threading.active_count(),
    "sockets": [name for name in opened if name.startswith("socket:")],
    "files": [path.name for path in pathlib.Path().iterdir()],
    "actor": flashsale.actors.confirm_purchases.actor_name,
}))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database=parse_database_url(f"sqlite:///{tmp_path}/flashsale.db"),
        audit_interval_seconds=60,  # nothing but the shutdown writes the trail
    )


def test_what_bounds_a_consumer_unless_told_otherwise_is_what_the_settings_default_to() -> None:
    limits, settings = Limits(), Settings()

    assert (limits.batch_size, limits.in_flight, limits.prefetch) == (
        settings.batch_size,
        settings.batches_in_flight,
        settings.prefetch,
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(str(settings.database)) as made:
        yield made


def entries_of(store: Store) -> list[AuditEntry]:
    (order_id,) = new_order_ids(1)
    return [AuditEntry.confirmed(store.add_sale(), "user", order_id, now())]


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("in vain")


def import_actors(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql"])
def test_importing_the_actors_starts_nothing_and_connects_to_nothing(
    tmp_path: Path, scheme: str
) -> None:
    """Dramatiq's master imports them as well, and forks afterwards."""
    server = f"postgresql://user:secret@127.0.0.1:{free_port()}/name"
    environment = {
        "DATABASE_URL": server if scheme == "postgresql" else "sqlite:///flashsale.db",
        "RABBITMQ_URL": f"amqp://127.0.0.1:{free_port()}",
    }
    done = import_actors(tmp_path, environment)

    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "threads": 1,
        "sockets": [],
        "files": [],
        "actor": "confirm_purchases",
    }


def test_a_wrong_environment_ends_the_import_with_all_problems_and_no_traceback(
    tmp_path: Path,
) -> None:
    environment = {
        "DATABASE_URL": "mysql://user:my-secret@host/name",
        "RABBITMQ_URL": "http://user:my-secret@host",
        "PURCHASE_QUEUE": "purchase.DQ",
        "FLASHSALE_BATCH_SIZ": "1",
    }
    done = import_actors(tmp_path, environment)

    assert done.returncode == 2
    assert done.stdout == ""
    first, *problems = done.stderr.splitlines()
    assert first == "flashsale cannot start, its environment is wrong:"
    assert [problem.partition(":")[0] for problem in problems] == list(environment)
    assert "my-secret" not in done.stderr


def test_making_a_worker_starts_no_thread_and_makes_no_file(
    settings: Settings, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    PurchaseWorker(settings, new_broker=EmbeddedBroker)

    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


def test_a_broker_url_that_cannot_be_used_ends_the_import_likewise(tmp_path: Path) -> None:
    done = import_actors(tmp_path, {"RABBITMQ_URL": "amqp://guest:my-secret@host?heartbeat=x"})

    assert (done.returncode, done.stdout) == (2, "")
    first, problem = done.stderr.splitlines()
    assert first == "flashsale cannot start, its environment is wrong:"
    assert problem.startswith("RABBITMQ_URL: ")
    assert "heartbeat" in problem
    assert "my-secret" not in problem


def test_a_stop_is_harmless_before_a_start_and_when_repeated(settings: Settings) -> None:
    before = set(threading.enumerate())
    worker = PurchaseWorker(settings, new_broker=EmbeddedBroker)
    for _ in range(2):
        worker.drain()
        worker.stop()

    wait_until(lambda: set(threading.enumerate()) <= before, THREADS_END_SECONDS, "all threads end")


def test_a_step_of_the_stop_that_fails_keeps_no_other_from_being_taken(
    store: Store,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = PurchaseWorker(settings, new_broker=EmbeddedBroker)
    worker.trail.record(entries_of(store))
    monkeypatch.setattr(SizeTrigger, "stop", fail)
    worker.drain()
    worker.stop()

    assert len(store.trail()) == 1
    assert worker.database.is_closed()
    assert "worker.stop_failed" in [record.message for record in caplog.records]


def test_a_start_that_fails_ends_the_process_and_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dramatiq only logs what a hook raises, and would consume without what did not start."""
    before = set(threading.enumerate())
    monkeypatch.setattr(BackgroundScheduler, "start", fail)
    worker = PurchaseWorker(settings, new_broker=EmbeddedBroker)
    with pytest.raises(SystemExit) as ended:
        dramatiq.Worker(worker.broker, worker_threads=1).start()

    assert ended.value.code == 1
    (line,) = [record for record in caplog.records if record.message == "worker.start_failed"]
    assert line.cause == "RuntimeError: in vain"
    wait_until(lambda: set(threading.enumerate()) <= before, THREADS_END_SECONDS, "all threads end")


def test_a_process_that_ends_itself_writes_its_trail_and_blames_no_event(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: Queue[int] = Queue()
    monkeypatch.setattr(os, "_exit", codes.put)
    folder = tmp_path / "state"
    settings = replace(settings, state_folder=str(folder), shutdown_seconds=0.5)
    worker = PurchaseWorker(settings)
    worker.trail.record(entries_of(store))
    worker._suspects.begin([b"event"])
    worker.drain()  # and nothing ends it

    assert codes.get(timeout=THREADS_END_SECONDS) == exit_codes.FAILURE
    assert len(store.trail()) == 1
    assert Suspects(folder).deaths(b"event") == 0
    worker.stop()


def test_a_shutdown_that_is_cut_off_says_what_became_of_all_deliveries(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codes: Queue[int] = Queue()
    monkeypatch.setattr(os, "_exit", codes.put)
    worker = PurchaseWorker(replace(settings, shutdown_seconds=0.5), new_broker=EmbeddedBroker)
    tally = worker.tally
    tally.delivered, tally.settled, tally.dead_lettered, tally.returned, tally.open = 15, 1, 2, 4, 8
    worker.drain()  # and nothing ends it

    assert codes.get(timeout=THREADS_END_SECONDS) == exit_codes.FAILURE
    (line,) = [each for each in caplog.records if each.message == "worker.shutdown_abandoned"]
    account = {name: getattr(line, name) for name in ACCOUNT}
    assert account == dict(zip(ACCOUNT, (15, 1, 2, 4, 8, 0), strict=True))
    worker.stop()


def test_a_stop_says_what_became_of_all_deliveries(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), running(settings) as worker:
        worker.publish(purchases_of(store.add_sale(), "user", "other"))
        worker.join()

    (line,) = [each for each in caplog.records if each.message == "worker.stopped"]
    account = {name: getattr(line, name) for name in ACCOUNT}
    assert account == dict(zip(ACCOUNT, (2, 2, 0, 0, 0, 0), strict=True))


def test_a_wait_for_the_database_is_not_taken_for_a_standstill(settings: Settings) -> None:
    """A process that would recover is not to be ended."""
    address = parse_database_url("postgresql://user@host/name?pool_timeout=60")
    worker = PurchaseWorker(replace(settings, database=address), new_broker=EmbeddedBroker)
    longest = 60 + CONNECT_TIMEOUT_SECONDS + settings.statement_timeout_seconds
    worker._consumers.append(SimpleNamespace(stuck_seconds=lambda: longest))
    assert worker._symptom() is None

    worker._consumers.append(SimpleNamespace(stuck_seconds=lambda: 2 * longest))
    assert "nothing has moved" in str(worker._symptom())


def test_a_process_that_can_write_no_dead_letters_is_stuck(settings: Settings) -> None:
    """Their events would stay unacknowledged, in memory, for as long as it lives."""
    worker = PurchaseWorker(settings)
    worker.broker.consume(*settings.purchase_queues)
    (transport,) = worker.broker._transports
    assert worker._symptom() is None

    transport._writer._thread = threading.Thread()  # one that does not run
    assert "writes dead letters" in str(worker._symptom())


def test_the_end_of_a_worker_thread_writes_the_trail(store: Store, settings: Settings) -> None:
    """What follows, the end of the consumers, may have to wait for RabbitMQ."""
    with running(settings) as worker:
        worker.worker.trail.record(entries_of(store))
        worker.broker.emit_before("worker_thread_shutdown", None)
        assert len(store.trail()) == 1


def test_a_full_batch_of_audit_events_is_written_without_the_timer(
    store: Store, settings: Settings
) -> None:
    with running(replace(settings, audit_batch_size=1)) as worker:
        worker.publish(purchases_of(store.add_sale(), "user"))
        wait_until(store.trail, THREADS_END_SECONDS, "the row is written")


def test_a_stop_writes_the_audit_trail(store: Store, settings: Settings) -> None:
    with running(settings) as worker:
        worker.publish(purchases_of(store.add_sale(), "user"))
        worker.join()

    assert (len(worker.worker.trail), len(store.trail())) == (0, 1)


def test_workers_that_start_and_stop_again_and_again_leave_nothing_behind(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flashsale.worker, "_THREAD_POLL_MILLISECONDS", 5)
    sale_id = store.add_sale()
    before = set(threading.enumerate())
    for number in range(CYCLES):
        with running(settings) as worker:
            worker.publish(purchases_of(sale_id, f"user-{number:02}"))
            if number % 2:  # the others are stopped while they may still be starting
                worker.join()
    with running(settings) as worker:
        worker.publish(purchases_of(sale_id, *store.users()))
        worker.join()

    assert len(store.trail()) == len(store.users()) >= CYCLES // 2
    wait_until(lambda: set(threading.enumerate()) <= before, THREADS_END_SECONDS, "all threads end")
