"""The exporter's process, from its port to its end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from flashsale.exporter.page import MetricsPage
from flashsale.exporter.queues import QueueWatch
from flashsale.exporter.server import Page, PageServer
from flashsale.health import Condition, condition_of, why_not_alive, why_not_ready
from flashsale.reports import Report, read_reports, worker_folder
from flashsale.settings import Settings

log = logging.getLogger(__name__)

_PORT_RETRY_SECONDS = 2.0
_POLL_SECONDS = 0.25
_GRACE_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"
_OK, _UNAVAILABLE = 200, 503


class Exporter:
    """Serves ``/metrics``, ``/livez`` and ``/readyz`` for the worker whose master started it.

    It goes on through the worker's own shutdown, so that the last numbers can be had, and ends
    when the last process has stopped; a second signal ends it at once, as the master's exit does.
    A port that is taken is tried again every few seconds: a restart may find the old one in use.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = worker_folder(settings.state_folder)
        self._queues = QueueWatch(settings)
        self._metrics = MetricsPage(self._reports, self._queues)
        self._server: PageServer | None = None
        self._asked_at: float | None = None

    def run(self) -> None:
        """Serve until the end. To be called on the process's main thread."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take_signal)
        self._queues.start()
        next_try, told = 0.0, False
        try:
            while not self._is_over():
                if self._server is None and time.monotonic() >= next_try:
                    next_try = time.monotonic() + _PORT_RETRY_SECONDS
                    told = self._listen(told)
                time.sleep(_POLL_SECONDS)
        finally:
            self._queues.stop()

    def _take_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked_at is not None:
            sys.exit(0)
        self._asked_at = time.monotonic()

    def _is_over(self) -> bool:
        if self._asked_at is None:
            return False
        if time.monotonic() - self._asked_at > self._settings.shutdown_seconds + _GRACE_SECONDS:
            return True
        ended = (Condition.STOPPED, Condition.GONE)
        return all(condition_of(report) in ended for report in self._reports())

    def _listen(self, told: bool) -> bool:
        """Start serving. Returns whether a failure was told, now or `told` before."""
        host, port = self._settings.metrics_host, self._settings.metrics_port
        pages = {
            "/metrics": self._metrics.render,
            "/livez": lambda: self._answer(why_not_alive),
            "/readyz": lambda: self._answer(why_not_ready),
        }
        try:
            self._server = PageServer(host, port, pages)
        except OSError as error:
            if not told:
                cause = error.strerror or str(error)
                log.warning("metrics.unserved", extra={"host": host, "port": port, "cause": cause})
            return True
        threading.Thread(target=self._server.serve_forever, name="pages", daemon=True).start()
        log.info("metrics.serving", extra={"host": host, "port": port})
        return False

    def _reports(self) -> list[Report]:
        return read_reports(self._folder)

    def _answer(self, why_not: Callable[[list[Report]], list[str]]) -> Page:
        causes = why_not(self._reports())
        body = "".join(f"{cause}\n" for cause in causes) or "ok\n"
        return Page(_UNAVAILABLE if causes else _OK, _TEXT, body.encode())
