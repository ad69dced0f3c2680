"""W24, W26, W30, W31: what surrounds the work: log lines, middleware, connections."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flashsale.batching import BatchingConsumer, Breaker, ChannelLost, Limits, Tally
from flashsale.batching.transport import Channel
from flashsale.logs import LogQueue, handler
from tests.support.shop import Shop
from tests.windows.conftest import StartHosted

LOG_IN_SIGNAL_HANDLERS = """
import logging, signal
from flashsale.logs import LogQueue

log = logging.getLogger(__name__)
signal.signal(signal.SIGALRM, lambda *_: log.info("a line of a signal handler"))
lines = LogQueue(logging.NullHandler())
lines.start("INFO")
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
for _ in range(50_000):
    log.info("a line that may be interrupted")
signal.setitimer(signal.ITIMER_REAL, 0)
lines.stop()
"""
FAILING_INSERT = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''no order for %'', NEW.user_id USING ERRCODE = ''ZZ001''; END';
CREATE TRIGGER fail BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION fail()
"""


def test_w24_a_log_that_nobody_reads_keeps_no_order_waiting(
    shop: Shop, start_hosted: StartHosted
) -> None:
    """Stock's threads stop inside their logging calls once the pipe to the master is full."""
    with unread_log() as lines:
        flood = threading.Thread(target=log_much, daemon=True)
        flood.start()
        flood.join(10)
        assert lines.dropped > 0

        shop.buy(["buyer"])
        worker = start_hosted(shop)
        worker.wait_for(settled=1)
        worker.stop()

    shop.assert_settled(["buyer"])


def test_w24_a_signal_handler_that_logs_does_not_wait_for_the_line_it_interrupts() -> None:
    """Dramatiq's do, and two signals may come at once: the thread would wait for itself."""
    subprocess.run([sys.executable, "-c", LOG_IN_SIGNAL_HANDLERS], timeout=30, check=True)


@contextmanager
def unread_log() -> Iterator[LogQueue]:
    """The worker's log, into a pipe that nobody reads until the end."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        lines = LogQueue(handler(stream, "json", on_terminal=False))
        lines.start("INFO")
        try:
            yield lines
        finally:
            drain = threading.Thread(target=read_all, args=(reader,))
            drain.start()
            lines.stop()
    drain.join()


def log_much() -> None:
    log = logging.getLogger(__name__)
    for _ in range(20_000):
        log.info("a line among many")


def read_all(descriptor: int) -> None:
    with os.fdopen(descriptor, "rb") as pipe:
        pipe.read()


def test_w26_none_of_dramatiqs_own_middleware_runs(shop: Shop, start_hosted: StartHosted) -> None:
    """Its TimeLimit could raise in a thread at any line, also between commit and verdict."""
    worker = start_hosted(shop)

    modules = {type(middleware).__module__ for middleware in worker.broker.middleware}

    # The last one is how Dramatiq's worker hears of queues.
    assert modules == {"flashsale.worker", "flashsale.batching.retries", "dramatiq.worker"}


def test_w30_no_failure_puts_a_shopper_into_the_log(
    shop: Shop, start_hosted: StartHosted, caplog: pytest.LogCaptureFixture
) -> None:
    """Stock logs the arguments of what fails, and the traceback, which quotes them too."""
    caplog.set_level(logging.DEBUG, "dramatiq.worker")  # which the worker's logging quietens
    shop.query(FAILING_INSERT)
    shop.buy(["shopper@example.com"])
    worker = start_hosted(shop, retry_max_seconds=0.1)
    worker.wait_for(held=3)
    worker.stop()

    assert "Failed to process message" in caplog.text
    assert "shopper@example.com" not in caplog.text


class NoBroker:
    """A transport whose broker cannot be reached."""

    def open(self) -> Channel:
        raise ChannelLost("RabbitMQ cannot be reached")

    def dead_letter(self, *_: object) -> None:
        raise AssertionError("nothing was delivered")

    def close(self, seconds: float) -> None:
        pass


def test_w31_attempts_to_reconnect_come_at_growing_distances_without_limit() -> None:
    """Stock makes six at once, and gives up."""
    pauses: list[float] = []
    consumer: BatchingConsumer[bytes] = BatchingConsumer(
        NoBroker(),
        bytes,
        queue_name="purchase",
        actor_name="confirm",
        breaker=Breaker(clock=lambda: 0.0),
        tally=Tally(),
        limits=Limits(),
        clock=lambda: 0.0,
        wait=pauses.append,
    )

    for _ in range(100):
        assert next(consumer) is None

    assert len(pauses) == 100
    assert 0 < max(pauses[:3]) < min(pauses[-10:]) <= max(pauses) <= 3.0
