"""Workers that are killed, stopped, frozen or orphaned."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.torture.harness import Round
from tests.torture.inside.crash_points import EXIT_CRASHED, POINTS, STOPPING_POINTS
from tests.torture.scenario import SCENARIOS, Scenario, scenario

_ORPHANS_LEAVE_SECONDS = 8.0
# The reconciler leaves orders younger than 10 s to the queues of the processes that wrote them.
_RECONCILED_SECONDS = 20.0
_CRASH_SECONDS = 20.0
_HEARTBEAT_SECONDS = 2


@scenario("F1", "kill -9 one worker of three, three times")
def kill_one(round_: Round) -> None:
    round_.start(masters=3)
    for _ in range(3):
        round_.pause(0.3, 1.2)
        round_.workers.kill([round_.choice.choice(round_.workers.worker_pids())])
    round_.healed()


@scenario("F2", "kill -9 all three workers at once, twice; the next ones complete the audit")
def kill_all(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.start(masters=1, processes=3, settings={"FLASHSALE_RECONCILE_INTERVAL_SECONDS": "1"})
    for _ in range(2):
        round_.pause(0.3, 1.5)
        round_.workers.kill(round_.workers.worker_pids())
        round_.pause(1.0, 2.0)
    round_.healed()
    round_.load.stop()
    round_.expect_within(
        lambda: not round_.orders_without_audit(), _RECONCILED_SECONDS, "workers complete the audit"
    )


@scenario("F4", "kill -9 a master: its workers leave")
def kill_master(round_: Round) -> None:
    round_.start(masters=2, processes=2)
    round_.pause(0.3, 1.0)
    victim, *_ = round_.workers.master_pids()
    orphans = [pid for pid in round_.workers.worker_pids() if _parent(pid) == victim]
    round_.workers.kill([victim])
    round_.expect_within(
        lambda: not any(_is_alive(pid) for pid in orphans),
        _ORPHANS_LEAVE_SECONDS,
        "the orphaned workers leave",
    )
    round_.workers.kill(pid for pid in orphans if _is_alive(pid))
    round_.healed()


@scenario("F5", "SIGTERM under load; the next ones go on")
def stop_gracefully(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.start(masters=1, processes=3)
    round_.pause(0.3, 1.5)
    begin = time.monotonic()
    codes = round_.workers.restart()
    seconds = time.monotonic() - begin
    round_.expect(codes == [0], f"exit codes after SIGTERM: {codes}")
    round_.expect(seconds < 7, f"SIGTERM took {seconds:.1f} s")
    round_.healed()


@scenario("F5.twice", "SIGTERM twice under load: at once, and nothing lost")
def stop_twice(round_: Round) -> None:
    round_.start(masters=1, processes=2)
    round_.pause(0.3, 1.5)
    masters = round_.workers.master_pids()
    pids = [*masters, *round_.workers.worker_pids()]
    for _ in range(2):
        round_.workers.signal(masters, signal.SIGTERM)
        round_.pause(0.0, 0.5)
    round_.expect_within(
        lambda: not any(_is_alive(pid) for pid in pids), 9, "the workers end after two SIGTERM"
    )
    round_.healed()


@scenario("F6", "SIGSTOP for three heartbeats, then SIGCONT")
def freeze(round_: Round) -> None:
    round_.start(broker_query=f"?heartbeat={_HEARTBEAT_SECONDS}")
    round_.pause(0.3, 1.0)
    frozen = [round_.choice.choice(round_.workers.worker_pids())]
    round_.workers.signal(frozen, signal.SIGSTOP)
    time.sleep(3 * _HEARTBEAT_SECONDS)
    round_.workers.signal(frozen, signal.SIGCONT)
    round_.healed()


def _crash(round_: Round, point: str, *, stopping: bool) -> None:
    """Let every worker of the first generation crash there once; the next ones are whole."""
    round_.events.bad_share = 0.1
    crash = {"CRASH_POINT": point, "CRASH_STOPPING": "1" if stopping else ""}
    # A shutdown passes most points once, if at all.
    crash["CRASH_HITS"] = "1" if stopping else str(round_.choice.randint(1, 4))
    workers = round_.start_workers(settings=crash, modules=["crash_points"])
    workers.modules = ()
    for name in crash:
        del workers.environment[name]
    round_.load.start()
    if stopping:
        round_.expect_within(round_.orders, _CRASH_SECONDS, "orders are committed")
        round_.pause(0.5, 1.5)
        workers.signal(workers.master_pids(), signal.SIGTERM)
    round_.expect_within(
        lambda: workers.restarts >= len(workers.master_pids()),
        _CRASH_SECONDS,
        f"all workers crash at {point}",
    )
    if point in STOPPING_POINTS or not stopping:  # a shutdown need not pass the other points
        codes = set(workers.exit_codes)
        round_.expect(codes == {EXIT_CRASHED}, f"exit codes of crashes: {codes}")
    round_.healed()


for _point in POINTS:
    SCENARIOS.append(
        Scenario(
            f"F3.{_point}", f"kill -9 at {_point}", partial(_crash, point=_point, stopping=False)
        )
    )
for _point in ("insert-sent", "after-commit", "audit-queued", "before-ack", *STOPPING_POINTS):
    SCENARIOS.append(
        Scenario(
            f"F3.stop.{_point}",
            f"kill -9 at {_point} in a shutdown",
            partial(_crash, point=_point, stopping=True),
        )
    )


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(_stat(pid)[1])
    return 0


def _is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    with suppress(OSError):
        return _stat(pid)[0] != "Z"
    return False


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
