"""Ends a process that can neither go on nor end by itself: none is ever quietly stuck.

Ending at once is safe at any instruction: what is not acknowledged comes again, and the reconciler
completes the audit trail.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping

from flashsale import exit_codes

log = logging.getLogger(__name__)


_CHECK_SECONDS = 1.0
_LAST_LINE_SECONDS = 0.25
_LAST_WORDS_SECONDS = 0.5


class Watchdog:
    """Asks `symptom` every second; at the first answer logs it and ends the process.

    `symptom` returns why the process cannot go on, or None; that it fails is a symptom as well. It
    runs on the watchdog's thread, and `end` is what is called then: ``os._exit`` with
    STUCK of :mod:`flashsale.exit_codes` by default.

    To stop is harmless when repeated, or before a start.
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
            symptom = self._ask()
            if symptom is not None and not self._stopping.is_set():
                log.critical("worker.stuck", extra={"cause": symptom})
                self._stopping.wait(_LAST_LINE_SECONDS)  # for the line to get out
                self._end(exit_codes.STUCK)
                return

    def _ask(self) -> str | None:
        try:
            return self._symptom()
        except Exception as error:  # noqa: BLE001  # a process unwatched could stand still for ever
            # Its text may hold values.
            return f"the look for a symptom failed: {type(error).__name__}"


class Backstop:
    """Ends the process some time after :meth:`start`, unless :meth:`stop` comes before.

    `account` is called first, for further fields of the log line; it must not block, and may fail.
    Then `last_words` is; it is given half a second and may fail.

    To stop is harmless when repeated, or before a start.
    """

    def __init__(
        self,
        seconds: float,
        last_words: Callable[[], object],
        *,
        account: Callable[[], Mapping[str, object]] = dict,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._seconds = seconds
        self._last_words = last_words
        self._account = account
        self._end = end
        self._stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="backstop", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        if self._stopped.wait(self._seconds):
            return
        extra = {"seconds": self._seconds, **self._fields()}
        log.error("worker.shutdown_abandoned", extra=extra)
        speaker = threading.Thread(target=self._last_words, name="last-words", daemon=True)
        speaker.start()
        speaker.join(_LAST_WORDS_SECONDS)
        self._stopped.wait(_LAST_LINE_SECONDS)  # for the line to get out
        self._end(exit_codes.FAILURE)

    def _fields(self) -> Mapping[str, object]:
        try:
            return self._account()
        except Exception as error:  # noqa: BLE001  # the end must come, with an account or without
            return {"unaccounted": type(error).__name__}  # its text may hold values
