"""What a worker is as a process of the system: its signals, its parent, and where its log goes."""

from __future__ import annotations

import ctypes
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
from flashsale.settings import Settings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# systemd signals every process of the group, and the master then forwards it to its workers.
_SAME_REQUEST_SECONDS = 1.0


class ProcessLifecycle(Middleware):
    """Sees to the process itself: it never blocks on a log line, and ends as its master does."""

    def __init__(self, settings: Settings) -> None:
        # Dramatiq replaces sys.stderr by a pipe to its master; descriptor 2 is still the terminal.
        target = handler(sys.stderr, settings.log_format, on_terminal=os.isatty(2))
        self._level = settings.log_level
        self._queue = LogQueue(target)

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002
        self._queue.start(self._level)
        take_repeated_signals_once()
        stop_with_parent()

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._queue.stop()


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
