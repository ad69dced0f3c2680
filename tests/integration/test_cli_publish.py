"""`flashsale publish` as a process, against a real node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flashsale import exit_codes
from flashsale.purchases import Purchase
from tests.conftest import QueueNames
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import wait_until
from tests.torture.proxy import Fault, Proxy

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"
GOOD = Purchase(SALE, "shopper", "2026-01-02T03:04:05.678Z").encode()
COMMAND = [sys.executable, "-m", "flashsale", "publish"]
SECONDS = 30


@pytest.fixture
def environment(rabbitmq_url: str, queue_names: QueueNames) -> dict[str, str]:
    return {
        **os.environ,
        "RABBITMQ_URL": rabbitmq_url,
        "PURCHASE_QUEUE": queue_names.purchase_queue,
        "DEAD_LETTER_QUEUE": queue_names.dead_letter_queue,
    }


def run(
    environment: dict[str, str], *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def started(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def depth(server: PrivateRabbitMQ, queue: str) -> int:
    """How many messages wait in `queue`; none where there is no queue yet."""
    connection = server.connect()
    channel = connection.channel()
    channel.queue_declare(
        queue,
        durable=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.XQ"},
    )
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    connection.close()
    return count


def test_made_up_events_are_published_and_summed_up_as_json(
    rabbitmq_server: PrivateRabbitMQ, environment: dict[str, str], queue_names: QueueNames
) -> None:
    done = run(environment, "--sale", SALE, "--count", "2500", "--json")

    assert done.returncode == exit_codes.OK
    summary = json.loads(done.stdout)
    assert (summary["published"], summary["refused"]) == (2_500, 0)
    assert depth(rabbitmq_server, queue_names.purchase_queue) == 2_500
    assert b"\x1b" not in done.stderr  # no progress bar where there is no terminal


def test_a_file_with_a_bad_line_is_published_in_part(
    rabbitmq_server: PrivateRabbitMQ,
    environment: dict[str, str],
    queue_names: QueueNames,
    tmp_path: Path,
) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(GOOD + b"\nbad\n" + GOOD + b"\n")

    done = run(environment, str(events))

    assert done.returncode == exit_codes.PARTIAL
    assert done.stdout == b""
    assert b"line 2: json:" in done.stderr
    assert depth(rabbitmq_server, queue_names.purchase_queue) == 2


def test_unchecked_lines_go_to_the_named_queue_byte_for_byte(
    rabbitmq_server: PrivateRabbitMQ, environment: dict[str, str], queue_names: QueueNames
) -> None:
    environment["PURCHASE_QUEUE"] = "another"

    done = run(
        environment, "-", "--unchecked", "--queue", queue_names.purchase_queue, stdin=b" \xff\r\n"
    )

    assert done.returncode == exit_codes.OK
    connection = rabbitmq_server.connect()
    assert connection.channel().basic_get(queue_names.purchase_queue, True)[2] == b" \xff\r"
    connection.close()


def test_a_line_leaves_as_soon_as_it_arrives_and_an_interrupt_says_what_is_confirmed(
    rabbitmq_server: PrivateRabbitMQ, environment: dict[str, str], queue_names: QueueNames
) -> None:
    with started(environment, "-", "--json") as process:
        assert process.stdin is not None
        process.stdin.write(GOOD + b"\n")
        process.stdin.flush()
        wait_until(
            lambda: depth(rabbitmq_server, queue_names.purchase_queue) == 1, SECONDS, "it arrives"
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)

    assert process.returncode == exit_codes.INTERRUPTED
    assert json.loads(out)["published"] == 1
    assert b"Traceback" not in err


def test_an_interrupt_at_full_speed_waits_for_what_is_under_way_and_counts_it(
    rabbitmq_server: PrivateRabbitMQ, environment: dict[str, str], queue_names: QueueNames
) -> None:
    with started(environment, "--sale", SALE, "--count", "100000000", "--json") as process:
        wait_until(
            lambda: depth(rabbitmq_server, queue_names.purchase_queue), SECONDS, "it publishes"
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)

    assert process.returncode == exit_codes.INTERRUPTED
    assert b"Traceback" not in err
    published = json.loads(out)["published"]
    assert 0 < published == depth(rabbitmq_server, queue_names.purchase_queue)


def test_what_a_lost_node_has_not_confirmed_goes_to_the_next(
    environment: dict[str, str], rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> None:
    count = 20_000
    with Proxy(rabbitmq_server.port) as node:
        first = f"amqp://guest:guest@127.0.0.1:{node.port}"
        environment["RABBITMQ_URL"] = f"{first};{rabbitmq_server.url()}"
        with started(environment, "--sale", SALE, "--count", str(count)) as process:
            wait_until(
                lambda: depth(rabbitmq_server, queue_names.purchase_queue), SECONDS, "events come"
            )
            node.impose(Fault(drop_replies=True))
            wait_until(
                lambda: any(link.is_torn for link in node.links()), SECONDS, "a confirm is lost"
            )
            node.impose(Fault(refuse=True))
            node.cut()
            _, talk = process.communicate(timeout=SECONDS)

    assert process.returncode == exit_codes.OK
    assert b"may or may not have arrived" in talk
    assert depth(rabbitmq_server, queue_names.purchase_queue) >= count
