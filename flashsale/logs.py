"""Log lines: an event's name and its fields, readable on a terminal and JSON elsewhere.

Modules log with the standard library: ``log.warning("work.suspended", extra={"cause": …})``.
structlog only renders; a line that asks for something is given its next step. In the worker, lines
pass through a bounded queue, so that a reader that stalls costs log lines, and never orders.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import threading
from typing import Any, TextIO

import structlog

from flashsale.hints import HINTS
from flashsale.settings import LogFormat

_WAITING_LINES = 10_000
_LAST_LINES_SECONDS = 1.0


def handler(stream: TextIO, log_format: LogFormat, *, on_terminal: bool) -> logging.Handler:
    """A handler that renders to `stream`; ``auto`` means console on a terminal, else JSON."""
    console = log_format == "console" or (log_format == "auto" and on_terminal)
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _add_hint,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.types.Processor]
    if console:
        # The stock traceback shows the variables of each frame: passwords, shoppers, events.
        plain = structlog.dev.plain_traceback
        rendering = [structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=plain)]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    made = logging.StreamHandler(stream)
    made.setFormatter(formatter)
    return made


def _add_hint(
    _logger: Any, _method: str, line: structlog.types.EventDict
) -> structlog.types.EventDict:
    hint = HINTS.get(line["event"])
    return line if hint is None else {**line, "hint": hint}


class LogQueue:
    """Takes over the root logger until :meth:`stop`; never blocks who logs.

    Where lines come faster than `target` takes them, they are dropped and counted in `dropped`.
    """

    def __init__(self, target: logging.Handler) -> None:
        self.dropped = 0
        # Dramatiq's signal handlers log, and may interrupt put(), also each other's: of Python's
        # queues only this one lets them. Any lock here would stop every thread that logs.
        self._lines: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._target = target
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._replaced: list[logging.Handler] = []

    def start(self, level: str) -> None:
        root = logging.getLogger()
        self._replaced, root.handlers = root.handlers, [_Enqueue(self)]
        root.setLevel(level)
        self._thread.start()

    def put(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() < _WAITING_LINES:
            self._lines.put(record)
        else:
            self.dropped += 1

    def stop(self) -> None:
        """Give the last lines a second to get out. Harmless when repeated, or before a start.

        Where the reader stalls, they end with the process.
        """
        root = logging.getLogger()
        if not self._thread.is_alive():
            return
        root.handlers = self._replaced
        self._lines.put(None)
        self._thread.join(_LAST_LINES_SECONDS)

    def _run(self) -> None:
        reported = 0
        while (record := self._lines.get()) is not None:
            self._target.handle(record)
            if self.dropped > reported and self._lines.empty():
                lost, reported = self.dropped - reported, self.dropped
                logging.getLogger(__name__).warning("logs.dropped", extra={"lines": lost})


class _Enqueue(logging.Handler):
    def __init__(self, lines: LogQueue) -> None:
        super().__init__()
        self._queue = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(record)


def quieten_libraries() -> None:
    """Leave out what libraries say of each step: Dramatiq of a batch, APScheduler of a run.

    APScheduler warns of a run that is left out because the one before still works, as a flush of a
    long audit queue does: nothing is wrong then. Peewee's lines hold the values of each statement,
    user ids among them, so they are left out at every level.
    """
    logging.getLogger("peewee").setLevel(logging.WARNING)
    logging.getLogger("dramatiq.worker").setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def configure_command(log_format: LogFormat, level: str) -> None:
    """Log lines of a command: to stderr, as they come."""
    root = logging.getLogger()
    root.handlers = [handler(sys.stderr, log_format, on_terminal=sys.stderr.isatty())]
    root.setLevel(level)
    quieten_libraries()
