"""A worker process's beginning and end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import flashsale.worker
from flashsale.settings import Settings
from flashsale.urls import parse_database_url
from flashsale.worker import PurchaseWorker
from tests.support.embedded import running
from tests.support.ports import free_port
from tests.support.stores import Store, open_store, purchases_of
from tests.support.waiting import wait_until

CYCLES = 50
THREADS_END_SECONDS = 5.0
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


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(str(settings.database)) as made:
        yield made


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
    PurchaseWorker(settings, embedded=True)

    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


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
