"""What a worker is as a process of the system: its signals, its parent, and where its log goes."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import dramatiq
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from flashsale.logs import LogQueue, handler
from flashsale.reporting import Reporter
from flashsale.reports import Report
from flashsale.settings import Settings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# systemd signals every process of the group, and the master then forwards it to its workers.
_SAME_REQUEST_SECONDS = 1.0
_NEW_OBJECTS_BEFORE_A_SEARCH = 50_000


class ProcessLifecycle(Middleware):
    """Sees to the process itself: it never blocks on a log line, and ends as its master does.

    It has `report` written down each second, and the exporter started, once for all processes.
    """

    def __init__(self, settings: Settings, report: Callable[[], Report]) -> None:
        self._has_exporter = bool(settings.metrics_port)
        self._report = report
        self._reporter = Reporter(settings.state_folder, self._whole_report)
        self._level = settings.log_level
        self._queue = _log_queue(settings)

    @property
    def forks(self) -> list[Callable[[], int]]:
        """What Dramatiq's master is to run in a process of its own."""
        return [export] if self._has_exporter else []

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002
        self._queue.start(self._level)
        take_repeated_signals_once()
        stop_with_parent()

    def after_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._reporter.start()
        spare_long_lived_objects()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._reporter.stop()
        self._queue.stop()

    def _whole_report(self) -> Report:
        report = self._report()
        counts = {**report.counts, "log_lines_dropped": self._queue.dropped}
        return dataclasses.replace(report, counts=counts)


def export() -> int:
    """The exporter's process, which Dramatiq's master starts beside those that work."""
    # Here, since the processes that work have no use for its libraries.
    from flashsale.exporter.process import Exporter  # noqa: PLC0415

    settings = Settings.from_env()
    queue = _log_queue(settings)
    queue.start(settings.log_level)
    stop_with_parent()
    try:
        Exporter(settings).run()
    finally:
        queue.stop()
    return 0


def _log_queue(settings: Settings) -> LogQueue:
    # Dramatiq replaces sys.stderr by a pipe to its master; descriptor 2 is still the terminal.
    return LogQueue(handler(sys.stderr, settings.log_format, on_terminal=os.isatty(2)))


def spare_long_lived_objects() -> None:
    """Have the garbage collector leave alone what lives on, and come less often for the rest.

    A batch makes thousands of objects without a cycle among them; with Python's own thresholds the
    search for cycles would begin anew several times in each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_BEFORE_A_SEARCH)


def take_repeated_signals_once() -> None:
    """Let Dramatiq's worker hear a request to stop once, though it comes by several ways.

    It takes the second signal as the order to drop everything. Here one within a second of the
    first is the same request; a later one is obeyed. To be called on the main thread.
    """
    asked_at: float | None = None

    def guarded(handler: Callable[[int, FrameType | None], object]) -> Callable[..., None]:
        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal asked_at
            now = time.monotonic()
            if asked_at is None:
                asked_at = now
            elif now - asked_at < _SAME_REQUEST_SECONDS:
                return
            handler(number, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, guarded(handler))


def stop_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies.

    Without it, the workers of a killed master would go on, unseen, beside those of the next one.
    Linux only; elsewhere it does nothing.
    """
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except AttributeError:
        return
    parent = os.getppid()
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew what to do
        os.kill(os.getpid(), signal.SIGTERM)
