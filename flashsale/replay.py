"""What ``dramatiq flashsale.replay --processes 1`` loads: one replay of the dead letters.

It replays those that are there when it starts, with the ramp and the caps of the environment, and
ends Dramatiq's master with it: exit code 0 where all were replayed and none failed again, 5 where
some are left, 1 to 3 as the command's. Of several processes one replays, and the others wait and
end with its code.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Never

import dramatiq
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from flashsale import exit_codes
from flashsale.dead_letters import running
from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.holding import HeldQueue
from flashsale.dead_letters.records import Records
from flashsale.dead_letters.replaying import RunOutcome
from flashsale.dead_letters.selection import select_replayable
from flashsale.dead_letters.shared_exit_code import SharedExitCode
from flashsale.errors import BrokerError, FlashsaleError, SettingsError
from flashsale.logs import LogQueue, handler, quieten_libraries
from flashsale.process import stop_with_parent, take_repeated_signals_once
from flashsale.settings import Settings

log = logging.getLogger(__name__)

_STOP_SECONDS = 15.0
_NAME = "flashsale replay"


class OneShotBroker(Broker):
    """A broker without queues, for a worker that does one thing and ends with :attr:`code`."""

    code = exit_codes.FAILURE  # where the work did not stop in time

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
        self._broker.code = _exit_code_of(self._replay_or_wait)
        self._end_master()

    def _replay_or_wait(self) -> int:
        with (
            Records(self._settings.state_folder) as records,
            SharedExitCode(records.folder) as shared,
        ):
            if not shared.is_ours:
                log.info("replay.idle", extra={"hint": "another process of this master replays"})
                self._stop.wait()
                return shared.read()
            code = _exit_code_of(lambda: replay_all(records, self._settings, self._stop))
            shared.write(code)
            self._end_master()
            # Till then it stays locked, so that a process that starts late does not replay again.
            self._stop.wait()
            return code

    def _end_master(self) -> None:
        """It passes the signal on to all its processes."""
        # Not the parent as the system knows it, which may be multiprocessing's server.
        master = multiprocessing.parent_process()
        if master is not None and master.pid is not None and not self._stop.is_set():
            os.kill(master.pid, signal.SIGTERM)


def _exit_code_of(work: Callable[[], int]) -> int:
    try:
        return work()
    except FlashsaleError as error:
        log.error("replay.failed", extra={"cause": str(error)})  # noqa: TRY400
        return exit_codes.BROKER if isinstance(error, BrokerError) else exit_codes.FAILURE
    except Exception as error:  # noqa: BLE001  # its text may hold an event's values
        log.error("replay.failed", extra={"cause": type(error).__name__})  # noqa: TRY400
        return exit_codes.FAILURE


def replay_all(records: Records, settings: Settings, stop: threading.Event) -> int:
    """Replay every dead letter that is there now; returns the exit code.

    Raises:
        FlashsaleError: it could not be done, or not to its end.
    """
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
    outcome = RunOutcome(selection.letters.total(), left_out=selection.left_out)

    def on_stage(sent: int, failed: int) -> None:
        progress = {"sent": sent, "failed_again": failed, "done": outcome.done}
        log.info("replay.stage", extra=progress)

    def on_wait(before: int) -> None:
        log.info("replay.waiting", extra={"purchases": before})

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
        on_wait=on_wait,
        stop=stop,
    )
    return 0 if outcome.is_complete else exit_codes.PARTIAL


def _nothing(_: Any) -> None:
    """Progress that is not shown: each stage has its log line."""


quieten_libraries()
try:
    settings = Settings.from_env()
except SettingsError as error:
    sys.stderr.write(f"flashsale cannot start, its environment is wrong:\n{error}\n")
    sys.exit(exit_codes.USAGE)

broker = OneShotBroker(middleware=[])
broker.add_middleware(ReplayOnce(broker, settings))
dramatiq.set_broker(broker)
