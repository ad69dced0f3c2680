"""Ends the worker process that loads this, as kill -9 would, at a named point of its work.

    CRASH_POINT=after-commit dramatiq flashsale.actors crash_points --path tests/torture/inside

The process ends when it passes the point for the CRASH_HITS-th time; with CRASH_STOPPING set, only
passes after a SIGTERM count. Without CRASH_POINT this changes nothing, and the product has no code
for it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pika.channel
import psycopg2.extensions

import flashsale.audit
import flashsale.database
from flashsale.audit import AuditTrail
from flashsale.batching import Batcher, BatchingConsumer
from flashsale.brokers.publishing import ConfirmingPublisher
from flashsale.brokers.rabbitmq import RabbitmqChannel
from flashsale.orders import OrderBook
from flashsale.worker import PurchaseWorker

EXIT_CRASHED = 9

Call = Callable[..., Any]


def _always(_args: tuple[Any, ...], _result: object) -> bool:
    return True


def _with_result(_args: tuple[Any, ...], result: object) -> bool:
    return bool(result)


def _with_purchases(args: tuple[Any, ...], _result: object) -> bool:
    return bool(args[2])  # those of OrderBook._insert; a probe has none


class Point(NamedTuple):
    """A call at whose begin or end the process ends, or once its statement is on its way."""

    owner: Any
    method: str
    when: str
    counts: Callable[[tuple[Any, ...], object], bool] = _always


#: Where a batch can die, in the order in which it passes the points.
POINTS = {
    "after-deliver": Point(RabbitmqChannel, "receive", "after", _with_result),
    "after-decode": Point(Batcher, "next_batch", "after", _with_result),
    "before-insert": Point(OrderBook, "_insert", "before", _with_purchases),
    "insert-sent": Point(OrderBook, "_insert", "sent", _with_purchases),
    "after-commit": Point(OrderBook, "_insert", "after", _with_purchases),
    "audit-queued": Point(AuditTrail, "record", "after"),
    "audit-sent": Point(flashsale.audit, "write_events", "sent"),
    "audit-written": Point(flashsale.audit, "write_events", "after"),
    "before-ack": Point(RabbitmqChannel, "ack", "before"),
    "ack-buffered": Point(pika.channel.Channel, "basic_ack", "after"),
    "after-ack": Point(RabbitmqChannel, "ack", "after"),
    "letter-sent": Point(ConfirmingPublisher, "_fill", "after"),
    "letter-published": Point(ConfirmingPublisher, "_on_confirm", "before"),
    "letter-confirmed": Point(ConfirmingPublisher, "publish", "after"),
}
#: Where a process can die in the course of a shutdown only.
STOPPING_POINTS = {
    "begun": Point(PurchaseWorker, "drain", "after"),
    "consumer-closing": Point(BatchingConsumer, "close", "before"),
    "consumer-closed": Point(BatchingConsumer, "close", "after"),
    "last-flush": Point(PurchaseWorker, "stop", "before"),
}


class _Countdown:
    def __init__(self, hits: int) -> None:
        self._left = hits
        self._changing = threading.Lock()
        self.counting = threading.Event()

    def hit(self) -> None:
        with self._changing:
            if self.counting.is_set():
                self._left -= 1
            if self._left <= 0:
                os._exit(EXIT_CRASHED)


def _wrapped(point: Point, original: Call, countdown: _Countdown) -> Call:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if point.when == "before" and point.counts(args, None):
            countdown.hit()
        result = original(*args, **kwargs)
        if point.when == "after" and point.counts(args, result):
            countdown.hit()
        return result

    return wrapper


def _wrapped_while_sent(point: Point, original: Call, countdown: _Countdown) -> Call:
    """Hit once a statement of the call is on its way and its answer is awaited."""
    calling = threading.local()
    wait = flashsale.database._wait_within_patience

    def wait_for_server(connection: Any) -> None:
        connecting = connection.status == psycopg2.extensions.STATUS_SETUP
        if getattr(calling, "now", False) and not connecting:
            connection.poll()
            countdown.hit()
        wait(connection)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calling.now = point.counts(args, None)
        try:
            return original(*args, **kwargs)
        finally:
            calling.now = False

    psycopg2.extensions.set_wait_callback(wait_for_server)
    return wrapper


def arm(point: Point, hits: int, *, stopping: bool) -> None:
    """End this process at the point."""
    countdown = _Countdown(hits)
    if stopping:
        drain = PurchaseWorker.drain

        def drain_and_count(worker: PurchaseWorker) -> None:
            countdown.counting.set()
            drain(worker)

        PurchaseWorker.drain = drain_and_count  # type: ignore[method-assign,assignment]
    else:
        countdown.counting.set()
    wrap = _wrapped_while_sent if point.when == "sent" else _wrapped
    setattr(point.owner, point.method, wrap(point, getattr(point.owner, point.method), countdown))


if name := os.environ.get("CRASH_POINT"):
    arm(
        (POINTS | STOPPING_POINTS)[name],
        int(os.environ.get("CRASH_HITS") or 1),
        stopping=bool(os.environ.get("CRASH_STOPPING")),
    )
