"""The private servers keep their promises: durable, side by side, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pika
import pytest

from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import QueueNames

_OWNER = """
import time
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.workers import RunningWorker
with PrivatePostgres() as postgres, PrivateRabbitMQ() as rabbitmq:
    env = {"DATABASE_URL": postgres.url(), "RABBITMQ_URL": rabbitmq.url()}
    with RunningWorker(env, processes=2) as worker:
        worker.wait_for_log("broker.connected", 15, lines=2)
        print(postgres.pid, *rabbitmq.pids, *worker.pids())
        print(postgres.folder, rabbitmq.folder, worker.folder, flush=True)
        time.sleep(600)
"""


def test_postgres_keeps_committed_rows_over_a_crash(postgres_server: PrivatePostgres) -> None:
    postgres_server.create_database("crash")
    connection = postgres_server.connect("crash")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 42 AS number")
    connection.close()

    postgres_server.crash()
    postgres_server.start()

    assert _ask(postgres_server, "crash", "SELECT number FROM kept") == "42"


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_postgres_is_as_durable_as_in_production(
    postgres_server: PrivatePostgres, setting: str
) -> None:
    assert _ask(postgres_server, "flashsale", f"SHOW {setting}") == "on"


def test_postgres_outlives_the_thread_that_started_it(postgres_server: PrivatePostgres) -> None:
    """Torture runs restart servers from short-lived threads."""
    postgres_server.stop()
    thread = threading.Thread(target=postgres_server.start)
    thread.start()
    thread.join()

    assert _ask(postgres_server, "flashsale", "SELECT 1") == "1"


def test_two_postgres_servers_run_side_by_side(postgres_server: PrivatePostgres) -> None:
    with PrivatePostgres({"shared_buffers": "8MB"}) as other:
        assert _ask(other, "flashsale", "SHOW shared_buffers") == "8MB"
        assert _ask(postgres_server, "flashsale", "SHOW shared_buffers") == "32MB"
    assert not other.folder.exists()


def test_rabbitmq_keeps_a_confirmed_persistent_message_over_a_kill(
    rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> None:
    connection = rabbitmq_server.connect()
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue_names.purchase_queue, durable=True)
    rabbitmq_server.store_declarations()
    persistent = pika.BasicProperties(delivery_mode=2)
    channel.basic_publish("", queue_names.purchase_queue, b"kept", persistent, mandatory=True)
    rabbitmq_server.kill()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connection.process_data_events(time_limit=10)

    rabbitmq_server.start()

    connection = rabbitmq_server.connect()
    _, _, body = connection.channel().basic_get(queue_names.purchase_queue, auto_ack=True)
    connection.close()
    assert body == b"kept"


def test_two_rabbitmq_nodes_run_side_by_side(rabbitmq_server: PrivateRabbitMQ) -> None:
    with PrivateRabbitMQ() as other:
        # A queue that a node made exists there alone: the two are no cluster.
        connection = other.connect()
        connection.channel().queue_declare("only-here")
        assert "only-here" in other.ctl("list_queues", "name")
        connection.close()
        connection = rabbitmq_server.connect()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker):
            connection.channel().queue_declare("only-here", passive=True)
        connection.close()


@pytest.mark.usefixtures("postgres_server", "rabbitmq_server")
def test_nothing_is_left_behind_by_a_killed_owner() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    with owner.stdout:
        pids, folders = owner.stdout.readline().split(), owner.stdout.readline().split()
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)

    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()

    left = [*(Path(f"/proc/{pid}") for pid in pids), *map(Path, folders)]
    wait_until(lambda: not any(path.exists() for path in left), 15, "processes and folders go")


def _ask(server: PrivatePostgres, database: str, question: str) -> str:
    connection = server.connect(database)
    with connection.cursor() as cursor:
        cursor.execute(question)
        answer = cursor.fetchone()[0]
    connection.close()
    return str(answer)
