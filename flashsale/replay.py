"""What ``dramatiq flashsale.replay --processes 1`` loads: one replay of the dead letters.

It replays those that are there when it starts, with the ramp and the caps of the environment, and
ends Dramatiq's master with it: exit code 0 where all were replayed and none failed again, 5 where
some are left, 1 to 4 as the command's. Of several processes one replays and the others wait.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Never

import dramatiq
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from flashsale.dead_letters import running
from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.holding import HeldQueue
from flashsale.dead_letters.records import Records
from flashsale.dead_letters.replaying import Outcome
from flashsale.dead_letters.selection import select_replayable
from flashsale.errors import BrokerError, FlashsaleError, SettingsError
from flashsale.logs import LogQueue, handler, quieten_libraries
from flashsale.process import stop_with_parent, take_repeated_signals_once
from flashsale.settings import Settings

log = logging.getLogger(__name__)

_EXIT_FAILURE = 1
_EXIT_USAGE = 2
_EXIT_BROKER = 3
_EXIT_PARTIAL = 5
_STOP_SECONDS = 15.0
_NAME = "flashsale replay"


class OneShotBroker(Broker):
    """A broker without queues, for a worker that does one thing and ends with :attr:`code`."""

    code = 0

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Never:  # noqa: ARG002
        raise TypeError("a replay consumes by itself")

    def close(self) -> None:
        """The last that Dramatiq's worker process calls, and so what decides its exit code."""
        if self.code:
            sys.exit(self.code)


class ReplayOnce(Middleware):
    """Replays on a thread of its own once the worker has booted, then ends the worker."""

    def __init__(self, broker: OneShotBroker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings
        # Dramatiq replaces sys.stderr by a pipe to its master; descriptor 2 is still the terminal.
        target = handler(sys.stderr, settings.log_format, on_terminal=os.isatty(2))
        self._lines = LogQueue(target)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002
        self._lines.start(self._settings.log_level)
        take_repeated_signals_once()
        stop_with_parent()

    def after_worker_boot(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._thread.start()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._stop.set()
        self._thread.join(_STOP_SECONDS)
        self._lines.stop()

    def _run(self) -> None:
        try:
            self._broker.code = replay_all(self._settings, self._stop)
        except FlashsaleError as error:
            self._broker.code = _EXIT_BROKER if isinstance(error, BrokerError) else _EXIT_FAILURE
            log.error("replay.failed", extra={"cause": str(error)})  # noqa: TRY400
        except Exception as error:  # noqa: BLE001  # its text may hold an event's values
            self._broker.code = _EXIT_FAILURE
            log.error("replay.failed", extra={"cause": type(error).__name__})  # noqa: TRY400
        # Of the master, which passes it on to all its processes. Not the parent as the system
        # knows it, which may be multiprocessing's server.
        master = multiprocessing.parent_process()
        if master is not None and master.pid is not None and not self._stop.is_set():
            os.kill(master.pid, signal.SIGTERM)


def replay_all(settings: Settings, stop: threading.Event) -> int:
    """Replay every dead letter that is there now; returns the exit code.

    Raises:
        FlashsaleError: it could not be done, or not to its end.
    """
    with Records(settings.state_folder) as records, _only_one_of(records.folder) as is_ours:
        if not is_ours:
            log.info("replay.idle", extra={"hint": "another process of this master replays"})
            stop.wait()
            return 0
        with HeldQueue(settings.broker_urls, settings.dead_letter_queue, _NAME) as queue:
            if notice := queue.lock():
                log.warning("replay.unlocked", extra={"notice": notice})
            return _replay_from(queue, records, settings, stop)


def _replay_from(
    queue: HeldQueue, records: Records, settings: Settings, stop: threading.Event
) -> int:
    selection = select_replayable(
        queue,
        Choice(),
        edit=Edit({}),
        records=records,
        limit=settings.replay_limit,
        force=False,
        max_event_bytes=settings.max_event_bytes,
        progress=_nothing,
    )
    plan = records.save_plan(
        "retry",
        settings.dead_letter_queue,
        selection.letters,
        largest_bytes=selection.largest_bytes,
    )
    about = {
        "plan": plan.name,
        "planned": selection.letters.total(),
        "refused": dict(selection.refused),
        "exhausted": selection.exhausted,
    }
    log.info("replay.started", extra=about)
    outcome = Outcome(selection.letters.total(), left_out=selection.left_out)

    def on_stage(sent: int, failed: int) -> None:
        progress = {"sent": sent, "failed_again": failed, "done": outcome.done}
        log.info("replay.stage", extra=progress)

    running.replay(
        queue,
        records,
        plan,
        settings,
        outcome=outcome,
        caps=running.caps_of(settings),
        edit=Edit({}),
        progress=_nothing,
        on_stage=on_stage,
        stop=stop,
    )
    return 0 if outcome.is_complete else _EXIT_PARTIAL


@contextmanager
def _only_one_of(folder: Path) -> Iterator[bool]:
    """Whether this is the one process of its master that replays.

    Another command at the same letters is told by the queue's own lock.
    """
    master = multiprocessing.parent_process()
    path = folder / f"replay-{master.pid if master else os.getpid()}.lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _nothing(_: Any) -> None:
    """Progress that is not shown: each stage has its log line."""


quieten_libraries()
try:
    settings = Settings.from_env()
except SettingsError as error:
    sys.stderr.write(f"flashsale cannot start, its environment is wrong:\n{error}\n")
    sys.exit(_EXIT_USAGE)

broker = OneShotBroker(middleware=[])
broker.add_middleware(ReplayOnce(broker, settings))
dramatiq.set_broker(broker)
