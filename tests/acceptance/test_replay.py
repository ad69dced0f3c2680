"""Dead letters replayed to a real worker: ramped, watched, killed in the middle and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartWorker
from tests.conftest import QueueNames
from tests.support.letters import LetterBox
from tests.support.processes import measured
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until

pytestmark = pytest.mark.acceptance

SECONDS = 60
RETRY = [sys.executable, "-m", "flashsale", "dead-letters", "retry", "--json"]
DRAMATIQ = [str(Path(sys.executable).with_name("dramatiq")), "flashsale.replay", "--processes"]


class Command:
    """A running command; its exit code and output once it has ended."""

    def __init__(self, arguments: list[str], env: dict[str, str], folder: Path) -> None:
        self._err = folder / f"{uuid.uuid4().hex}.err"
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                arguments,
                env=measured(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                start_new_session=True,
            )

    def end(self) -> tuple[int, str, str]:
        out, _ = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out.decode(), self._err.read_text()

    def kill(self) -> None:
        """It and what it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command in a shop's environment, with a state folder of the test's own."""
    commands: list[Command] = []

    def start(shop: Shop, *arguments: str, **env: str) -> Command:
        whole = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "FLASHSALE_STATE_FOLDER": str(tmp_path / "state"),
            **shop.environment(),
            **env,
        }
        commands.append(Command(list(arguments), whole, tmp_path))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


def box_of(shop: Shop) -> LetterBox:
    return LetterBox(shop.broker_url, QueueNames(shop.purchase_queue, shop.dead_letter_queue))


def a_plan(start: Start, shop: Shop) -> str:
    code, out, _ = start(shop, *RETRY, "--dry-run").end()
    assert code == 0
    return str(json.loads(out)["plan"])


def logged(err: str, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_ten_thousand_are_replayed_to_a_worker_though_the_replay_is_killed(
    shop: Shop, start_worker: StartWorker, start: Start
) -> None:
    users = [f"user-{number}" for number in range(10_000)]
    box_of(shop).put(shop.event(user) for user in users)
    worker = start_worker(shop)
    plan = a_plan(start, shop)

    first = start(shop, *RETRY, "--plan", plan, "--rate", "2000")
    shop.wait_for_orders(2_000, SECONDS)
    first.kill()
    code, out, err = start(shop, *RETRY, "--plan", plan, "--rate", "5000").end()

    assert (code, json.loads(out)["failedAgain"]) == (0, 0)
    assert "user-" not in err
    shop.wait_for_orders(len(users), SECONDS)
    wait_until(lambda: len(shop.confirmations()) == len(users), 10, "all audit rows are written")
    worker.terminate()
    assert worker.wait(10) == 0
    shop.assert_settled(users)


def test_a_replay_stops_where_events_fail_again_and_goes_on_once_that_is_mended(
    shop: Shop, start_worker: StartWorker, start: Start
) -> None:
    """The first event shows that nothing is mended; the others stay where they are."""
    missing_sale = str(uuid.uuid4())
    users = [f"user-{number}" for number in range(300)]
    box_of(shop).put(shop.event(user, missing_sale) for user in users)
    worker = start_worker(shop)
    worker.wait_for_log("worker.started", 20, lines=3)
    wait_until(shop.consumers, 20, "the worker consumes")

    code, out, err = start(shop, *RETRY, "--plan", a_plan(start, shop)).end()

    assert code == 5
    summary = json.loads(out)
    assert (summary["done"], summary["failedAgain"]) == (1, 1)
    assert "1 of the last 1 failed again" in err
    assert shop.ready(shop.dead_letter_queue) == 300
    shop.sale_id = missing_sale
    shop.open_sale()

    code, out, _ = start(shop, *RETRY, "--expect", "300").end()

    assert (code, json.loads(out)["done"]) == (0, 300)
    shop.wait_for_orders(300, 20)
    assert shop.ready(shop.dead_letter_queue) == 0


@pytest.mark.parametrize("processes", ["1", "3"])
def test_the_dramatiq_command_replays_what_is_there_once_and_ends(
    shop: Shop, start_worker: StartWorker, start: Start, processes: str
) -> None:
    """What no worker would take, or fails again, is not tried over and over."""
    good = [shop.event(f"user-{number}") for number in range(300)]
    hopeless = [b"no json"]
    fails_again = [shop.event("user", sale_id=str(uuid.uuid4()))]
    box_of(shop).put([*good, *hopeless, *fails_again])
    worker = start_worker(shop)
    worker.wait_for_log("worker.started", 20, lines=3)
    wait_until(shop.consumers, 20, "the worker consumes")

    code, _, err = start(shop, *DRAMATIQ, processes).end()

    assert code == 5
    (started,) = logged(err, "replay.started")
    assert (started["planned"], started["refused"]) == (301, {"json": 1})
    (ended,) = logged(err, "dead_letters.run_ended")
    assert (ended["done"], ended["failedAgain"]) == (301, 1)
    assert [line["sent"] for line in logged(err, "replay.stage")] == [1, 10, 100, 190]
    assert "unexpectedly" not in err
    assert "user-" not in err
    assert shop.order_count() == 300
    letters = [body for body, _ in shop.take_all(shop.dead_letter_queue)]
    assert letters == [*hopeless, *fails_again]

    assert start(shop, *DRAMATIQ, processes).end()[0] == 0


def test_a_node_that_dies_in_the_middle_costs_nothing(
    mortal_rabbitmq_shop: Shop, mortal_rabbitmq: PrivateRabbitMQ, start: Start
) -> None:
    shop = mortal_rabbitmq_shop
    bodies = [shop.event(f"user-{number}") for number in range(2_000)]
    box_of(shop).put(bodies)
    plan = a_plan(start, shop)

    command = start(shop, *RETRY, "--plan", plan, "--rate", "400")
    wait_until(lambda: shop.ready(shop.purchase_queue) > 200, SECONDS, "it replays")
    mortal_rabbitmq.kill()
    code, out, err = command.end()

    assert code == 3
    assert 0 < json.loads(out)["done"] < 2_000
    assert f"--plan {plan}" in err
    assert "Traceback" not in err
    mortal_rabbitmq.start()
    assert start(shop, *RETRY, "--plan", plan).end()[0] == 0
    arrived = [body for body, _ in shop.take_all(shop.purchase_queue)]
    # What a dying node has not written down of the acknowledgements comes again.
    assert set(arrived) == set(bodies)
    assert shop.ready(shop.dead_letter_queue) == 0
