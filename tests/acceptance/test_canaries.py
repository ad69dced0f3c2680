"""Wrong addresses of the servers, by every way to an error: none shows its password."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from flashsale import exit_codes
from flashsale.cli import cli, exits
from tests.acceptance.conftest import StartWorker
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop

pytestmark = pytest.mark.acceptance

#: Nobody listens there.
NOWHERE = "127.0.0.1:1"

DATABASE_URLS = [
    "",
    "canary",
    "mysql://u:canary@h/x",
    "postgresql://u:canary",
    f"postgresql://u:canary@{NOWHERE}",
    "postgresql://u:canary@h:canary/x",
    "postgresql://u:canary@[h/x",
    "postgresql://u:can/ary:canary@h/x",
    "postgresql://u:canary'@h x/x y",
    f"postgresql://u:canary@{NOWHERE}/x",
    f"postgresql://u:canary%zz%00@{NOWHERE}/x",
    f"postgresql://u:canary%00@{NOWHERE}/x",
    f"postgresql://u:canary@{NOWHERE}/x?password=a&canary",
    f"postgresql://u:canary@{NOWHERE}/x?sslmode=canary",
    f"postgresql://u:canary@{NOWHERE}/x?connect_timeout=canary",
    f"postgresql://u:canary@{NOWHERE}/x?sslmode=verify-full&sslrootcert=/canary",
    f"postgresql://u:canary@{NOWHERE}/x?sslpassword=canary&sslkey=/canary",
    f"postgresql://u@{NOWHERE}/x?passfile=/canary&password=canary",
    f"postgresql://u:canary@{NOWHERE}/x?service=canary",
    f"postgresql://u:canary@{NOWHERE}/x?options=-c%20canary",
    f"postgresql://u:canary@{NOWHERE}/x?target_session_attrs=canary",
    f"postgresql://u:canary@{NOWHERE}/x?connection_limit=canary",
    "postgresql://u:canary@127.0.0.1:999999/x",
]
BROKER_URLS = [
    "canary",
    "http://u:canary@h",
    "amqp://u:can;ary@h;canary@h",
    "amqp://u:can/canary@h",
    "amqp://canary@",
    "amqp://u:canary@h:canary",
    f"amqp://u:canary@{NOWHERE}",
    f"amqps://u:canary@{NOWHERE}",
    f"amqp://u:canary%zz%00@{NOWHERE}",
    f"amqp://u:canary@{NOWHERE};amqp://v:canary@{NOWHERE}",
    f"amqp://u:canary@{NOWHERE}?heartbeat=canary",
    f"amqp://u:canary@{NOWHERE}?heartbeat=canary&heartbeat=canary",
    f"amqps://u:canary@{NOWHERE}?ssl_options=canary",
    f"amqps://u:canary@{NOWHERE}?ssl_options=%7B'certfile':'canary','password':'canary'%7D",
    f"amqps://u:canary@{NOWHERE}?cacertfile=/canary",
    f"amqp://u:canary@{NOWHERE}/a/canary",
]


@pytest.fixture
def output(capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """What the test has run; at the end all that it printed is searched."""
    ran: list[str] = []
    yield ran
    shown = "".join(capfd.readouterr())
    assert shown or not ran
    assert "canary" not in shown
    assert "Traceback" not in shown


def run(*arguments: str) -> int:
    return exits.run(cli, arguments)


@pytest.mark.parametrize("url", DATABASE_URLS)
def test_no_command_shows_a_part_of_a_wrong_database_url(
    url: str, output: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))  # an empty URL is SQLite's, in the current folder
    monkeypatch.setenv("DATABASE_URL", url)
    output += ["migrate", "migrate --status"]
    expected = {exit_codes.OK} if not url else {exit_codes.USAGE, exit_codes.DATABASE}
    assert {run(*command.split()) for command in output} <= expected
    if url:
        assert run("migrate", "--database", url) in expected


@pytest.mark.parametrize("url", BROKER_URLS)
def test_no_command_shows_a_part_of_a_wrong_broker_url(
    url: str, output: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", url)
    output += ["topology", f"publish --sale {uuid.uuid4()} --count 1"]
    codes = {run(*command.split()) for command in output}
    assert codes <= {exit_codes.USAGE, exit_codes.BROKER}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_worker_that_neither_server_lets_in_shows_no_password(
    shop: Shop, rabbitmq_server: PrivateRabbitMQ, start_worker: StartWorker, log_format: str
) -> None:
    worker = start_worker(
        shop,
        DATABASE_URL=shop.database_url.replace("postgres@", "nobody:canary@"),
        RABBITMQ_URL=f"amqp://guest:canary@127.0.0.1:{rabbitmq_server.port}",
        FLASHSALE_LOG_FORMAT=log_format,
        FLASHSALE_RECONCILE_INTERVAL_SECONDS="1",
    )
    worker.wait_for_text("broker.unreachable", 15)
    worker.wait_for_text("audit.reconcile_failed", 15)
    worker.terminate()

    assert worker.wait(8) == 0
    assert "it refused user or password" in worker.log()
    assert "canary" not in worker.log()


@pytest.mark.parametrize(
    "wrong",
    [
        {"DATABASE_URL": f"postgresql://u:canary@{NOWHERE}/x?sslmode=canary"},
        {"DATABASE_URL": "postgresql://u:can?canary@h/x"},
        {"RABBITMQ_URL": f"amqps://u:canary@{NOWHERE}?ssl_options=canary"},
        {"PURCHASE_QUEUE": f"amqp://u:canary@{NOWHERE}"},
    ],
)
def test_a_worker_whose_environment_is_wrong_shows_no_password(
    shop: Shop, start_worker: StartWorker, wrong: dict[str, str]
) -> None:
    worker = start_worker(shop, **wrong)
    if "sslmode" in wrong.get("DATABASE_URL", ""):
        worker.wait_for_text("audit.reconcile_failed", 15)
        worker.terminate()
        assert worker.wait(8) == 0
    else:
        assert worker.wait(15) == exit_codes.USAGE
    assert worker.log()
    assert "canary" not in worker.log()
