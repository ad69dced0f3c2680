"""The stack of docker/compose.yaml sells: its services' own commands and environment, on servers.

Each runs as in a container of the image (tests/support/containers.py); only the addresses of the
two servers are those of private ones here. What is typed is what docs/deploying.md shows.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.test_compose import SERVICES, source_of
from tests.support.containers import ROOT, Host, stop
from tests.support.exporter import Exporter
from tests.support.postgres import PrivatePostgres, find_programs
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.transcripts import Step, steps
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker

PAGE = ROOT / "docs" / "deploying.md"
COMPOSE = "docker compose -f docker/compose.yaml "
SALE = "0190c5a4-7e0a-7bb3-8a3e-9d1d5b8f2c11"
STEPS = [step for step in steps(PAGE) if step.command.startswith(COMPOSE)]
GRACE_SECONDS = 15


class Stack:
    """The services, with the servers of this test in the place of the stack's."""

    def __init__(self, host: Host, postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ) -> None:
        self._host = host
        self._postgres, self._rabbitmq = postgres, rabbitmq
        self.workers: list[tuple[RunningWorker, Exporter]] = []
        for secret in ("postgres_password", "rabbitmq_password"):
            content = source_of(secret).read_text()
            (host.mounts["/run/secrets"] / secret).write_text(content)
        self.shop = Shop(postgres.url(), rabbitmq.url(), "purchase", "purchase.XQ")
        self.shop.sale_id = SALE

    def env(self, service: str) -> dict[str, str]:
        servers = {
            "@postgres:5432": f"@127.0.0.1:{self._postgres.port}",
            "@rabbitmq:5672": f"@127.0.0.1:{self._rabbitmq.port}",
        }
        env: dict[str, str] = SERVICES[service]["environment"]
        for there, here in servers.items():
            env = {name: value.replace(there, here) for name, value in env.items()}
        return env

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """``docker compose run --rm``"""
        return self._host.run(command or SERVICES[service]["command"], self.env(service))

    def start_worker(self) -> None:
        exporter = Exporter()
        env = {**self.env("worker"), **exporter.env, "FLASHSALE_METRICS_HOST": "127.0.0.1"}
        worker = self._host.start(self._host.image.command, env)
        self.workers.append((worker, exporter))

    def type(self, step: Step) -> subprocess.CompletedProcess[str]:
        """Carry a command of the page out: what it has a container run."""
        action, *words = shlex.split(step.command.removeprefix(COMPOSE))
        if action == "run":
            assert words[0] == "--rm"
            return self.run(*words[1:])
        assert action == "exec", step.command
        service, *command = words
        if service == "postgres":
            return self._psql(command)
        worker, _ = self.workers[0]
        return self._host.enter(worker, command, self.env(service))

    def _psql(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        assert program == "psql"
        return subprocess.run(
            [find_programs() / program, *arguments],
            env={
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self._postgres.port),
                "PATH": "/usr/bin:/bin",
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def close(self) -> None:
        for worker, _ in self.workers:
            worker.close()


@pytest.fixture
def stack(
    host: Host, postgres_server: PrivatePostgres, rabbitmq_server: PrivateRabbitMQ
) -> Iterator[Stack]:
    password = source_of("rabbitmq_password").read_text().strip()
    rabbitmq_server.ctl("add_user", "flashsale", password)
    rabbitmq_server.ctl("set_permissions", "flashsale", ".*", ".*", ".*")
    connection = postgres_server.connect("postgres")
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE flashsale LOGIN")
        cursor.execute("ALTER DATABASE flashsale OWNER TO flashsale")
    connection.close()
    found = Stack(host, postgres_server, rabbitmq_server)
    yield found
    found.close()
    rabbitmq_server.ctl("delete_user", "flashsale")


def test_the_services_of_the_stack_make_tables_sell_and_replay(stack: Stack) -> None:
    first, second = stack.run("migrate"), stack.run("migrate")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    for _ in range(2):
        stack.start_worker()
    for _, exporter in stack.workers:
        exporter.wait_until_ready()

    # Its sale is only made below.
    stack.shop.publish([stack.shop.event("early")])
    wait_until(lambda: stack.shop.ready("purchase.XQ"), 30, "the event is a dead letter")
    for step in STEPS:
        done = stack.type(step)
        assert done.returncode == step.code, f"{step.command}\n{done.stdout}{done.stderr}"
        assert step.output in done.stdout
        if " publish " in step.command:
            stack.shop.wait_for_orders(20_000, 60)

    stack.shop.wait_for_orders(20_001, 30)
    for worker, exporter in stack.workers:
        samples = exporter.scrape()
        assert samples["deliveries_total", ()] > 0, "each replica has had its share"
        assert samples["resident_memory_bytes", ()] < 300 * 2**20, "well within the stack's limit"
        stop(worker)
        assert worker.wait(GRACE_SECONDS) == 0


def test_the_page_shows_what_is_typed_here() -> None:
    actions = [step.command.removeprefix(COMPOSE).split()[0] for step in STEPS]

    assert actions.count("exec") >= 4
    assert any(" publish " in step.command for step in STEPS)
    assert "run" in actions, "the replay"


def test_each_command_of_the_page_names_a_service_and_a_file_that_there_are() -> None:
    """Those that only an engine can carry out, too."""
    text = Path(PAGE).read_text(encoding="utf-8")
    known = {"up", "exec", "run", "ps", "logs", "down"}
    for command in re.findall(r"docker compose -f (docker/compose\.yaml .+)", text):
        file, action, *words = shlex.split(command)
        assert (ROOT / file).exists()
        assert action in known, command
        if action in {"exec", "logs"}:
            assert SERVICES.keys() & set(words), command
