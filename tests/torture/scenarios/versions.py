"""Two workers of different make at once: two versions, or the worker before this one and this."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker
from tests.torture.fleet import Fleet
from tests.torture.harness import Round
from tests.torture.scenario import scenario

_ROOT = Path(__file__).parents[3]
#: Names another commit or tag than the one that is chosen here.
OLDER_VERSION = "TORTURE_OLDER_VERSION"
# Without a release before this one: as far back as makes a difference, and can be run.
_COMMITS_BACK = 60
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


def older_version() -> str | None:
    """The commit of the newest release before this commit, or one well before it.

    None where this is no repository, or its history does not go back so far.
    """
    wanted = (
        os.environ.get(OLDER_VERSION)
        or _git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^")
        or f"HEAD~{_COMMITS_BACK}"
    )
    return _git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}") or None


def unpack(commit: str, folder: Path) -> None:
    """Put that version's package into `folder`, as an installation of it would."""
    command = ["git", "-C", str(_ROOT), "archive", commit, "flashsale", "migrations"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    (folder / "migrations").rename(folder / "flashsale" / "migrations")


def _git(*arguments: str) -> str:
    """What git answers, or nothing where it has no answer or is not there."""
    try:
        # An unpacked sdist may lie within another repository.
        if not (_ROOT / ".git").exists():
            return ""
        answer = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _no_history() -> str:
    return "" if older_version() else "no older version: this is no clone, or a shallow one"


@scenario(
    "F34",
    "an older version beside this one, in turn: forth, back and forth again",
    missing=_no_history,
)
def roll(round_: Round) -> None:
    commit = older_version()
    assert commit is not None
    round_.audit_may_lag = False
    round_.events.bad_share = 0.1
    with tempfile.TemporaryDirectory(prefix="flashsale-older-") as folder:
        unpack(commit, Path(folder))
        origin = {"PYTHONPATH": folder}
        running = [_start(round_, origin)]
        round_.load.start()
        wait_until(lambda: round_.orders() or 0, _START_SECONDS, "the older version works")
        for settings in ({}, origin, {}):
            running.append(_start(round_, settings))
            round_.pause(0.5, 1.5)
            codes = running.pop(0).stop()
            round_.expect(codes == [0, 0], f"exit codes of a version that goes: {codes}")
            round_.healed()
        for fleet, is_older in zip(round_.fleets, (True, False, True, False), strict=True):
            loaded = f"flashsale of {folder}/flashsale/" in fleet.log.read_text(errors="replace")
            round_.expect(loaded == is_older, f"a worker is of the wrong version: {fleet.log}")


@scenario("F34.nestjs", "a stand-in for the NestJS worker beside this one; both are killed")
def take_over(round_: Round) -> None:
    round_.events.bad_share = 0.0  # its dead letters tell no reason
    with ExitStack() as resources:
        old = [resources.enter_context(_old_worker(round_)) for _ in range(2)]
        round_.start()
        for _ in range(3):
            round_.pause(0.2, 0.8)
            victim = round_.choice.choice(old)
            victim.kill()
            old.remove(victim)
            round_.workers.kill([round_.choice.choice(round_.workers.worker_pids())])
            old.append(resources.enter_context(_old_worker(round_)))
        round_.healed()
        everyone = round_.workers.size + len(old)  # one that is only starting would not stop well
        wait_until(lambda: round_.consumers() >= everyone, _START_SECONDS, "all are back")
        codes = round_.workers.stop()
        round_.expect(codes == [0, 0], f"exit codes of this worker: {codes}")
        round_.healed()  # with the old one alone
        _start(round_, {})
        for worker in old:
            worker.terminate()
        codes = [worker.wait(_STOP_SECONDS) for worker in old]
        round_.expect(codes == [0, 0], f"exit codes of the old worker: {codes}")
        round_.healed()


def _old_worker(round_: Round) -> RunningWorker:
    place, stage = round_.place, round_.stage
    env = {
        "PYTHONPATH": str(_ROOT),
        "DATABASE_URL": stage.postgres.url(place.database),
        "RABBITMQ_URL": stage.rabbitmq.url(),
    }
    queues = (place.purchase_queue, place.dead_letter_queue)
    return RunningWorker(env, command=[sys.executable, "-m", "tests.support.old_worker", *queues])


def _start(round_: Round, settings: dict[str, str]) -> Fleet:
    """Start two workers of a version; return when they consume beside those there are."""
    before = round_.consumers()
    fleet = round_.start_workers(settings=settings, modules=["origin"])
    wait_until(
        lambda: round_.consumers() >= before + fleet.size, _START_SECONDS, "both versions consume"
    )
    return fleet
