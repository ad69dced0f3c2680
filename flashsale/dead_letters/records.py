"""What is remembered between commands: sets that were shown, replays of each event, runs.

A folder of this user's own under FLASHSALE_STATE_FOLDER. It holds fingerprints, and nothing of an
event.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from flashsale.errors import FlashsaleError

_SUBFOLDER = "dead-letters"
_BUSY_SECONDS = 10.0
_KEEP_DAYS = 30
_TABLES = """
CREATE TABLE IF NOT EXISTS plans (
    plan TEXT PRIMARY KEY, what TEXT NOT NULL, queue TEXT NOT NULL, largest_bytes INT NOT NULL,
    edit TEXT NOT NULL, begun INT NOT NULL, made_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS planned (
    plan TEXT NOT NULL REFERENCES plans ON DELETE CASCADE, id BLOB NOT NULL, copies INT NOT NULL,
    PRIMARY KEY (plan, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replays (
    sha256 BLOB PRIMARY KEY, times INT NOT NULL, last_at TEXT NOT NULL) WITHOUT ROWID;
"""


class RecordsUnusable(FlashsaleError):
    """The folder for what is remembered cannot be used, so nothing may be replayed."""


class NoSuchPlan(FlashsaleError):
    """There is no plan of this name."""


class Plan(NamedTuple):
    """A set of letters that was shown.

    Attributes:
        what: What is done with them: retry or discard.
        queue: The dead-letter queue that they are in.
        largest_bytes: The largest body among them.
        edit: The fingerprint of the edit, empty where events stay as they are.
        begun: Whether a run of it has begun before, so that letters may be gone.
        letters: How many of each id.
    """

    name: str
    what: str
    queue: str
    largest_bytes: int
    edit: str
    begun: bool
    letters: Counter[str]


class Records:
    """One file, safe to share between commands of one machine, and against a kill at any moment.

    Raises:
        RecordsUnusable: from any method, naming the folder and what to do.
    """

    def __init__(self, state_folder: str) -> None:
        self.folder = Path(state_folder, _SUBFOLDER)
        with self._raising_records_unusable():
            # One by one: as a parent, the worker's folder would be made with rights for others.
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            about = self.folder.lstat()
            # Its parent may be anybody's, as /tmp is.
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
                raise PermissionError(0, "it belongs to somebody else")
            self._database = sqlite3.connect(
                self.folder / "records.sqlite", timeout=_BUSY_SECONDS, isolation_level=None
            )
            try:
                self._database.execute("PRAGMA foreign_keys = ON")
                self._database.executescript(_TABLES)
                age = (f"-{_KEEP_DAYS} days",)
                self._database.execute("DELETE FROM plans WHERE made_at < datetime('now', ?)", age)
            except sqlite3.Error:
                self._database.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def save_plan(
        self, what: str, queue: str, letters: Counter[str], *, largest_bytes: int, edit: str = ""
    ) -> Plan:
        """Remember a set for 30 days, under a new name."""
        plan = Plan(secrets.token_hex(4), what, queue, largest_bytes, edit, False, letters)
        with self._transaction():
            self._database.execute(
                "INSERT INTO plans VALUES (?, ?, ?, ?, ?, ?, datetime('now'))", plan[:-1]
            )
            rows = ((plan.name, bytes.fromhex(id_), copies) for id_, copies in letters.items())
            self._database.executemany("INSERT INTO planned VALUES (?, ?, ?)", rows)
        return plan

    def load_plan(self, name: str) -> Plan:
        """
        Raises:
            NoSuchPlan: it was never made on this machine, or is older than 30 days.
        """
        with self._raising_records_unusable():
            found = self._database.execute(
                "SELECT what, queue, largest_bytes, edit, begun FROM plans WHERE plan = ?", (name,)
            ).fetchone()
            if found is None:
                raise NoSuchPlan(
                    f"there is no plan {name!r} in {self.folder}; `flashsale dead-letters retry"
                    " --dry-run` makes one"
                )
            rows = self._database.execute("SELECT id, copies FROM planned WHERE plan = ?", (name,))
            what, queue, largest_bytes, edit, begun = found
            letters = Counter({id_.hex(): copies for id_, copies in rows})
        return Plan(name, what, queue, largest_bytes, edit, bool(begun), letters)

    def begin(self, plan: Plan) -> None:
        """Note that a run of the plan begins."""
        with self._transaction():
            self._database.execute("UPDATE plans SET begun = 1 WHERE plan = ?", (plan.name,))

    def replays(self, sha256: str) -> int:
        """How often the event of this fingerprint was replayed from this machine."""
        with self._raising_records_unusable():
            key = (bytes.fromhex(sha256),)
            row = self._database.execute("SELECT times FROM replays WHERE sha256 = ?", key)
            return int((row.fetchone() or (0,))[0])

    def count_replays(self, fingerprints: Iterable[str]) -> None:
        """One more replay of each."""
        with self._transaction():
            self._database.executemany(
                "INSERT INTO replays VALUES (?, 1, datetime('now')) ON CONFLICT (sha256)"
                " DO UPDATE SET times = times + 1, last_at = excluded.last_at",
                ((bytes.fromhex(sha256),) for sha256 in fingerprints),
            )

    def log_run(self, **about: Any) -> dict[str, Any]:
        """Append the one line of a run to ``journal.jsonl``, on the disk when this returns."""
        line = {"at": datetime.now(UTC).isoformat(), "by": _operator(), **about}
        with (
            self._raising_records_unusable(),
            (self.folder / "journal.jsonl").open("ab") as journal,
        ):
            journal.write(json.dumps(line).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())
        return line

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._raising_records_unusable(), closing(self._database.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    @contextmanager
    def _raising_records_unusable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise RecordsUnusable(
                f"{self.folder} cannot be used ({why}), and replays are counted there; set"
                " FLASHSALE_STATE_FOLDER to a folder of this user's own"
            ) from error


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in many containers
        return f"uid {os.getuid()}"
