"""Ends a process that cannot recover by itself, so that its supervisor can: never quietly stuck.

Ending at once is safe at any instruction: what is not acknowledged comes again, and the reconciler
completes the audit trail.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h

_CHECK_SECONDS = 1.0
_LAST_LINE_SECONDS = 0.25
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Watchdog:
    """Asks `symptom` every second; at the first answer logs it and ends the process.

    `symptom` returns why the process cannot go on, or None. It runs on the watchdog's thread, and
    `end` is what is called then: ``os._exit`` with :data:`EXIT_STUCK` by default.
    """

    def __init__(
        self, symptom: Callable[[], str | None], *, end: Callable[[int], object] = os._exit
    ) -> None:
        self._symptom = symptom
        self._end = end
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Watch no more: a shutdown has a deadline of its own."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_CHECK_SECONDS):
            symptom = self._symptom()
            if symptom is not None and not self._stopping.is_set():
                log.critical("worker.stuck", extra={"cause": symptom})
                self._stopping.wait(_LAST_LINE_SECONDS)  # for the line to get out
                self._end(EXIT_STUCK)
                return


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
