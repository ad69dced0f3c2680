"""`flashsale status` and `flashsale top`, against real servers, silent ones and none."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashsale import exit_codes
from flashsale.batching import Tally
from flashsale.cli import cli, exits
from flashsale.dead_letters.holding import HeldQueue
from flashsale.orders import OrderBook
from flashsale.reports import prepare, worker_folder, write_report
from tests.conftest import QueueNames
from tests.support.letters import LetterBox, event
from tests.support.ports import free_port
from tests.support.relays import black_hole
from tests.support.reports import counts_of, report
from tests.support.stores import open_store, purchases_of

pytestmark = [pytest.mark.postgres, pytest.mark.rabbitmq]

Look = Callable[[], tuple[int, dict[str, Any]]]

_ENOUGH_SECONDS = 7.0


@pytest.fixture
def box(
    postgres_url: str,
    rabbitmq_url: str,
    queue_names: QueueNames,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> LetterBox:
    """Both queues, and a migrated database, in the environment."""
    box = LetterBox(rabbitmq_url, queue_names)
    for name, value in box.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("FLASHSALE_STATE_FOLDER", str(tmp_path / "state"))
    return box


@pytest.fixture
def look(box: LetterBox, capsys: pytest.CaptureFixture[str]) -> Look:
    """Runs ``flashsale status --json``; gives its exit code and what it wrote."""

    def look_() -> tuple[int, dict[str, Any]]:
        code = exits.run(cli, ["status", "--json"])
        return code, json.loads(capsys.readouterr().out)

    return look_


def sell(url: str, *users: str) -> None:
    """Orders of these users, without audit rows."""
    with open_store(url, migrated=True) as store:
        purchases = purchases_of(store.add_sale(), *users)
        OrderBook(store.database).confirm(purchases, [None] * len(users))
        # As old as those that the reconciler looks for, but one.
        store.execute(
            "UPDATE orders SET created_at = created_at - interval '15 seconds' WHERE user_id <> ?",
            users[0],
        )


def work_here(folder: Path, tally: Tally | None = None, **counts: float) -> None:
    """Report as a worker process of this machine would."""
    where = worker_folder(folder, os.getpid())
    prepare(where)
    write_report(where, report(counts={**counts_of(tally or Tally()), **counts}))


def publish(box: LetterBox, *bodies: bytes) -> None:
    with box.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", box.purchases, body)


def test_every_source_is_told(
    look: Look, box: LetterBox, postgres_url: str, tmp_path: Path
) -> None:
    publish(box, event("ann"), event("bob"))
    box.put([event("eve"), event("mallory")], "unknown_sale")
    box.put([b"{"], "json")
    sell(postgres_url, "now", "then", "before")
    made_at = time.time() - 90
    work_here(
        tmp_path / "state",
        Tally(delivered=7, open=7),
        audit_queue=3,
        last_event_at=made_at,
        last_event_age=80.0,
    )

    code, found = look()

    assert code == exit_codes.OK
    depth = {"ready": 2, "consumers": 0}
    purchases = {"queue": box.purchases, **depth, "queues": {box.purchases: depth}}
    assert found["broker"]["purchases"] == purchases
    letters = found["broker"]["dead_letters"]
    assert (letters["ready"], letters["reasons"]) == (3, {"unknown_sale": 2, "json": 1})
    assert found["database"]["orders_per_second"] == 1 / 5
    assert found["database"]["last_order_age_seconds"] < 10
    assert found["database"]["unaudited"] == 2
    (process,) = found["workers"].pop("processes")
    assert (process["pid"], process["state"], process["breaker"], process["is_consuming"]) == (
        os.getpid(),
        "running",
        "closed",
        True,
    )
    assert found["workers"] == {"in_flight": 7, "audit_rows": 3, "lag_seconds": 80.0}
    assert 90 <= found["oldest_seconds_at_most"] < 100


def test_looking_touches_no_purchase_and_leaves_the_letters_in_order(
    look: Look, box: LetterBox
) -> None:
    bodies = [event(f"user-{number}") for number in range(1_200)]
    publish(box, *bodies[:3])
    box.put(bodies)

    letters = look()[1]["broker"]["dead_letters"]

    assert (letters["ready"], letters["looked_at"]) == (1_200, 1_000)
    with box.channel() as channel:
        taken = [channel.basic_get(box.purchases, auto_ack=True) for _ in range(3)]
    assert [(method.redelivered, body) for method, _, body in taken] == [
        (False, body) for body in bodies[:3]
    ]
    assert box.bodies(box.letters) == bodies


def test_letters_are_left_to_a_retry_that_is_at_work(look: Look, box: LetterBox) -> None:
    box.put([event("ann")])
    with HeldQueue([box.url], box.letters, "a retry") as retry:
        retry.lock()

        letters = look()[1]["broker"]["dead_letters"]

    assert (letters["looked_at"], letters["ready"]) == (0, 1)
    assert "a retry or discard is at work" in letters["reasons_problem"]


def test_a_quorum_queue_of_letters_is_not_looked_into(
    look: Look, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    quorum = f"{box.letters}.quorum"
    monkeypatch.setenv("DEAD_LETTER_QUEUE", quorum)
    with box.channel() as channel:
        channel.queue_declare(quorum, durable=True, arguments={"x-queue-type": "quorum"})
        channel.confirm_delivery()
        channel.basic_publish("", quorum, event("ann"))

        letters = look()[1]["broker"]["dead_letters"]
        channel.queue_delete(quorum)

    assert (letters["looked_at"], letters["ready"]) == (0, 1)
    assert "quorum" in letters["reasons_problem"]


def test_a_silent_rabbitmq_hides_nothing_else_and_not_for_long(
    look: Look, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sell(postgres_url, "ann")
    with black_hole() as port:
        monkeypatch.setenv("RABBITMQ_URL", f"amqp://127.0.0.1:{port}")
        begun = time.monotonic()
        code, found = look()

    assert time.monotonic() - begun < _ENOUGH_SECONDS
    assert code == exit_codes.BROKER
    assert "no answer in time" in found["broker"]["error"]
    assert found["database"]["orders_per_second"] == 1 / 5


def test_a_silent_database_hides_nothing_else_and_not_for_long(
    look: Look, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(box, event("ann"))
    with black_hole() as port:
        monkeypatch.setenv("DATABASE_URL", f"postgresql://user:canary@127.0.0.1:{port}/flashsale")
        begun = time.monotonic()
        code, found = look()

    assert time.monotonic() - begun < _ENOUGH_SECONDS
    assert code == exit_codes.DATABASE
    assert "did not answer in time" in found["database"]["error"]
    assert "canary" not in json.dumps(found)
    assert found["broker"]["purchases"]["ready"] == 1


def test_people_are_told_the_same_and_what_is_away_in_its_place(
    look: Look,
    box: LetterBox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    box.put([b"{"], "json")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://127.0.0.1:{free_port()}/flashsale")
    monkeypatch.setenv("COLUMNS", "200")

    code = exits.run(cli, ["status"])

    out = capsys.readouterr().out
    assert code == exit_codes.DATABASE
    assert f"in {box.letters}: 1 json" in out
    assert "the database cannot be reached: check host" in out
    assert "no worker has reported on this machine" in out


def test_top_refuses_what_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.run(cli, ["top"]) == exit_codes.USAGE
    assert "flashsale status --json" in capsys.readouterr().err


def test_top_shows_it_live_until_it_is_interrupted(box: LetterBox) -> None:
    publish(box, event("ann"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flashsale", "top", "--interval", "0.5"]
    terminal = {"TERM": "xterm", "COLUMNS": "120", "LINES": "30", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | terminal
    )
    os.close(theirs)
    try:
        shown = read_until(ours, "consumers")
        assert f"wait in {box.purchases}" in shown
        assert "\x1b[31m" not in shown
        publish(box, event("bob"))
        read_until(ours, "▅█")  # one waits, then two
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == exit_codes.OK
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: str) -> str:
    """What comes from a terminal, up to `text`."""
    shown, until = b"", time.monotonic() + 20
    while text.encode() not in shown:
        assert select.select([terminal], [], [], until - time.monotonic())[0], shown.decode()
        shown += os.read(terminal, 65_536)
    return shown.decode()
