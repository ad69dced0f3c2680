"""A private PostgreSQL server, as durable as the real one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from tests.support.ports import free_port
from tests.support.processes import GuardedProcess, PrivateServer, ServerNotInstalled, process_tree
from tests.support.waiting import wait_until

_START_SECONDS = 30
_STOP_SECONDS = 30
_SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; every package of it makes this account.
_ACCOUNT_UNDER_ROOT = "postgres"
_INITDB_OPTIONS = ("-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync", "--no-instructions")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # files of its own folder, which go with that
}
# https://www.postgresql.org/docs/15/storage-file-layout.html: postmaster.pid's line of shared
# memory, its key and its id.
_SHARED_MEMORY_LINE = 6


class PrivatePostgres(PrivateServer):
    """A server on 127.0.0.1 with data of its own, gone with the ``with`` block or the process.

    `settings` are added to the server's configuration. The database ``flashsale`` exists from the
    start; everybody is trusted. One thread at a time may start and stop it.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._bin = find_programs()
        self._account = _ACCOUNT_UNDER_ROOT if os.getuid() == 0 else ""
        self._process: GuardedProcess | None = None
        self.port = free_port()
        self._settings = {**_SETTINGS, **(settings or {}), "port": str(self.port)}
        self.folder = Path(tempfile.mkdtemp(prefix="flashsale-postgres-"))
        self._data = self.folder / "data"

    @property
    def pid(self) -> int:
        """The postmaster's process id; RuntimeError while the server is down."""
        if self._process is None:
            raise RuntimeError("the private PostgreSQL is not running: call start() first")
        return self._process.pid

    def start(self) -> None:
        """Start with the same port and data; return when connections are accepted.

        Raises:
            RuntimeError: the server ended by itself; the text holds the end of its log.
            TimeoutError: it accepts no connections.
        """
        fresh = not self._data.exists()
        if fresh:
            self._make_data()
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        process = self._process = GuardedProcess(
            [str(self._bin / "postgres"), "-D", str(self._data), *options],
            folder=self.folder,
            log=self.folder / "server.log",
            ending=signal.SIGQUIT,  # SIGKILL would leave its shared memory behind
            user=self._account,
        )

        def accepts_connections() -> bool:
            process.check_running()
            try:
                self.connect("postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        wait_until(
            accepts_connections, _START_SECONDS, "the private PostgreSQL accepts connections"
        )
        if fresh:
            self._furnish()

    def crash(self) -> None:
        """End it as a power failure would, as ``pg_ctl stop -m immediate`` does."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End all its processes by SIGKILL, as the loss of its machine would."""
        pids = process_tree(self.pid)
        _, shared_memory = self._postmaster_lines()[_SHARED_MEMORY_LINE].split()
        for pid in pids:  # the postmaster first, which would start others anew
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)
        # What nobody is left to remove.
        subprocess.run(["ipcrm", "--shmem-id", shared_memory], check=False, capture_output=True)

    def stop(self) -> None:
        """Roll back what is open, disconnect everybody and shut down cleanly."""
        self._end(signal.SIGINT)

    def close(self) -> None:
        """End the server and remove its folder."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "flashsale", user: str = _SUPERUSER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "flashsale") -> Any:
        """A new psycopg2 connection of the superuser, in autocommit; the caller closes it."""
        connection = psycopg2.connect(self.url(database), connect_timeout=10)
        connection.autocommit = True
        return connection

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template`, to which nobody may be connected."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template or "template1")
        )
        self.administer(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, and disconnect whoever is connected to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self.administer(statement.format(sql.Identifier(name)))

    def administer(self, statement: str | sql.Composed, database: str = "postgres") -> Any:
        """Run one statement as superuser; returns its rows, if it has any."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def replicate_to(self, *standbys: PrivateStandby) -> None:
        """Let each commit wait for one of these from now on; for none, none waits."""
        names = ", ".join(standby.name for standby in standbys)
        self.administer(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.administer("SELECT pg_reload_conf()")
        wait_until(
            lambda: self.administer("SHOW synchronous_standby_names") == [(names,)],
            _START_SECONDS,
            "the setting is in force",
        )

    def _furnish(self) -> None:
        """What only a new server needs."""
        self.create_database("flashsale")

    def _make_data(self) -> None:
        if self._account:
            shutil.chown(self.folder, self._account, self._account)
        self._run("initdb", "-D", str(self._data), "-U", _SUPERUSER, *_INITDB_OPTIONS)

    def _postmaster_lines(self) -> list[str]:
        return (self._data / "postmaster.pid").read_text().splitlines()

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's own programs, as the account that the server runs as."""
        subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self.folder,
            user=self._account or None,
            group=self._account or None,
            extra_groups=[] if self._account else None,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.end(how, _STOP_SECONDS)
            self._process = None


class PrivateStandby(PrivatePostgres):
    """A copy of `primary` that follows it, and is read-only until :meth:`promote`."""

    def __init__(self, primary: PrivatePostgres) -> None:
        self._primary = primary
        super().__init__()
        #: By which ``synchronous_standby_names`` knows it.
        self.name = f"standby_{self.port}"
        self._settings["primary_conninfo"] = (
            f"host=127.0.0.1 port={primary.port} user={_SUPERUSER} application_name={self.name}"
        )

    def start(self) -> None:
        """Start, as :meth:`PrivatePostgres.start` does, and return when it follows its primary."""
        self.start_alone()
        wait_until(
            lambda: self._primary.administer(
                "SELECT 1 FROM pg_stat_replication"
                f" WHERE state = 'streaming' AND application_name = '{self.name}'"
            ),
            _START_SECONDS,
            "the standby follows",
        )

    def start_alone(self) -> None:
        """Start where there may be no primary to follow."""
        super().start()

    def promote(self) -> None:
        """Make it a primary; returns when it takes writes."""
        assert self.administer("SELECT pg_promote(wait_seconds => 60)") == [(True,)]

    def _furnish(self) -> None:
        """Nothing: it has what its primary has."""

    def _make_data(self) -> None:
        if self._account:
            shutil.chown(self.folder, self._account, self._account)
        source = f"host=127.0.0.1 port={self._primary.port} user={_SUPERUSER}"
        self._run(
            *("pg_basebackup", "--dbname", source, "--pgdata", str(self._data)),
            *("--checkpoint", "fast", "--no-sync"),
        )
        (self._data / "standby.signal").touch()


def find_programs() -> Path:
    """The folder of the server's programs.

    Raises:
        ServerNotInstalled: there is none.
    """
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run(
            [pg_config, "--bindir"], capture_output=True, text=True, check=False
        )
        candidates.insert(0, Path(answer.stdout.strip()))
    if postgres := shutil.which("postgres"):
        candidates.append(Path(postgres).parent)
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise ServerNotInstalled("PostgreSQL")


def _major_version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0
