"""A private RabbitMQ node."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pika
from pika.exceptions import AMQPError

from tests.support.ports import free_port
from tests.support.processes import GuardedProcess, PrivateServer, ServerNotInstalled
from tests.support.waiting import wait_until

_START_SECONDS = 60
_STOP_SECONDS = 60
_CTL_SECONDS = 60
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"


class PrivateRabbitMQ(PrivateServer):
    """A node on 127.0.0.1 with data of its own, gone with the ``with`` block or the process.

    `settings` are added to its rabbitmq.conf, `vm_arguments` to those of Erlang's VM. `management`
    adds the HTTP API, for the user guest, and seconds to the start. A node made `beside` another
    can be its peer, where both are configured so; the other has to be started first. One thread at
    a time may start and stop it.
    """

    def __init__(
        self,
        *,
        management: bool = False,
        settings: Mapping[str, str] | None = None,
        vm_arguments: str = "",
        beside: PrivateRabbitMQ | None = None,
    ) -> None:
        self._vm_arguments = vm_arguments
        self._scripts, self._epmd_program = _find_programs()
        self._process: GuardedProcess | None = None
        self._epmd: GuardedProcess | None = None
        self.port = free_port()
        self._beside = beside
        self._epmd_port: int = beside._epmd_port if beside else free_port()
        self._cookie: str = beside._cookie if beside else secrets.token_hex(16)
        self._distribution_port = free_port()
        self._management_port = free_port() if management else None
        #: Its name, by which its peers know it.
        self.name = f"flashsale-{os.getpid()}-{self.port}@127.0.0.1"
        self.folder = Path(tempfile.mkdtemp(prefix="flashsale-rabbitmq-"))
        self.configure(settings or {})

    @property
    def pid(self) -> int:
        """The Erlang VM's process id; RuntimeError while the node is down."""
        if self._process is None:
            raise RuntimeError("the private RabbitMQ is not running: call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    @property
    def pids(self) -> tuple[int, ...]:
        """The node and its own name server, epmd."""
        return tuple(process.pid for process in (self._process, self._epmd) if process)

    @property
    def management_url(self) -> str:
        """The HTTP API's address; RuntimeError unless it was asked for."""
        if self._management_port is None:
            raise RuntimeError("no HTTP API: construct it with management=True")
        return f"http://guest:guest@127.0.0.1:{self._management_port}"

    def url(self, vhost: str = "/") -> str:
        path = "" if vhost == "/" else f"/{quote(vhost, safe='')}"
        return f"amqp://guest:guest@127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        """Start with the same ports and data; return when an AMQP connection succeeds.

        Raises:
            RuntimeError: the node ended by itself; the text holds the end of its log.
            TimeoutError: it accepts no connections.
        """
        log = self.folder / "node.log"
        if self._epmd is None and self._beside is None:
            self._epmd = GuardedProcess(
                [self._epmd_program, "-address", "127.0.0.1", "-port", str(self._epmd_port)],
                folder=self.folder,
                log=self.folder / "epmd.log",
                ending=signal.SIGKILL,
            )
        process = self._process = GuardedProcess(
            [str(self._scripts / "rabbitmq-server")],
            folder=self.folder,
            log=log,
            ending=signal.SIGKILL,
            env=self._environment(),
        )

        def accepts_connections() -> bool:
            process.check_running()
            try:
                self.connect().close()
            except (AMQPError, OSError):
                return False
            return True

        wait_until(accepts_connections, _START_SECONDS, "the private RabbitMQ accepts connections")

    def store_declarations(self) -> None:
        """Have Mnesia move what was declared from its log into the files of its tables."""
        self.ctl("eval", "dumped = mnesia:dump_log().")

    def kill(self) -> None:
        """End it by SIGKILL: what was not yet on disk is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut down cleanly."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End the node and its epmd, and remove the folder."""
        self._end(signal.SIGKILL)
        if self._epmd is not None:
            self._epmd.end(signal.SIGKILL, _STOP_SECONDS)
            self._epmd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self) -> pika.BlockingConnection:
        """A new connection of the user guest; the caller closes it."""
        return pika.BlockingConnection(pika.URLParameters(self.url()))

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` prints for this node. Each call boots an Erlang VM.

        Raises:
            subprocess.CalledProcessError: it failed; `stderr` says why.
        """
        answer = subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "--quiet", *arguments],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=_CTL_SECONDS,
        )
        return answer.stdout

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write its rabbitmq.conf, which the next start reads; `settings` are added to it."""
        lines = {"listeners.tcp.1": f"127.0.0.1:{self.port}", **settings}
        if self._management_port is not None:
            lines["management.tcp.ip"] = "127.0.0.1"
            lines["management.tcp.port"] = str(self._management_port)
        plugins = "[rabbitmq_management]." if self._management_port is not None else "[]."
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (self.folder / "rabbitmq.conf").write_text(text)
        (self.folder / "enabled_plugins").write_text(plugins)
        (self.folder / "rabbitmq-env.conf").touch()
        cookie = self.folder / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)  # Erlang refuses a cookie that others may read

    def _environment(self) -> dict[str, str]:
        # With the name given here the VM is distributed from its start, and RabbitMQ need not
        # boot a second VM only to have epmd started.
        distribution = (
            f"-name {self.name} {_LOOPBACK}"
            f" -kernel inet_dist_listen_min {self._distribution_port}"
            f" -kernel inet_dist_listen_max {self._distribution_port}"
        )
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            # The script then becomes the VM instead of waiting for it, so that signals reach it.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{distribution} {self._vm_arguments}",
            "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK,
        }

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.end(how, _STOP_SECONDS)
            self._process = None


def _find_programs() -> tuple[Path, str]:
    # Debian's scripts in PATH change to the user rabbitmq; these are what they call in the end.
    candidates = [Path("/usr/lib/rabbitmq/bin")]
    if server := shutil.which("rabbitmq-server"):
        candidates.append(Path(server).resolve().parent)
    epmd = shutil.which("epmd")
    for folder in candidates:
        if epmd and (folder / "rabbitmq-server").exists() and (folder / "rabbitmq-env").exists():
            return folder, epmd
    raise ServerNotInstalled("RabbitMQ")
