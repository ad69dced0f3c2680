"""`flashsale dead-letters retry` and `discard` against a real node, without a worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashsale import exit_codes
from flashsale.dead_letters import watching
from tests.integration.conftest import Run
from tests.support.letters import LetterBox, event
from tests.support.waiting import wait_until

SECONDS = 30


def journal(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "state/dead-letters/journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, in the environment that `run` has set."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flashsale", "dead-letters", *arguments],
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def a_plan(run: Run, *arguments: str) -> str:
    code, out, err = run("retry", "--dry-run", "--json", *arguments)
    assert code == exit_codes.OK
    name: str = json.loads(out)["plan"]
    assert f"--plan {name}" in err
    return name


def test_what_was_chosen_goes_to_the_worker_and_the_rest_stays_in_order(
    run: Run, box: LetterBox, tmp_path: Path
) -> None:
    chosen = [event(f"chosen-{number}") for number in range(30)]
    others = [event(f"other-{number}") for number in range(600)]
    for start in range(30):
        box.put(others[start * 20 : start * 20 + 20], "constraint")
        box.put([chosen[start]], "unknown_sale")

    code, out, _ = run("retry", "--reason", "unknown_sale", "--json")

    assert code == exit_codes.OK
    assert json.loads(out)["done"] == 30
    assert box.bodies(box.purchases) == chosen
    assert box.bodies(box.letters) == others
    (line,) = journal(tmp_path)
    assert (line["what"], line["done"], line["failure"]) == ("retry", 30, None)
    assert line["by"]


def test_a_plan_means_the_letters_that_were_shown_and_no_later_ones(
    run: Run, box: LetterBox
) -> None:
    """Not even another death of the same event."""
    shown = [event(f"user-{number}") for number in range(150)]
    box.put(shown)
    plan = a_plan(run)
    assert box.depth(box.letters) == 150
    later = [*shown[:5], event("later")]
    box.put(later, last_seen="2026-01-03T00:00:00+00:00")

    assert run("retry", "--plan", plan)[0] == exit_codes.OK

    assert box.bodies(box.purchases) == shown
    assert box.bodies(box.letters) == later


def test_many_letters_are_not_replayed_without_having_been_counted(
    run: Run, box: LetterBox
) -> None:
    box.put(event(f"user-{number}") for number in range(101))

    code, _, err = run("retry")
    assert code == exit_codes.USAGE
    assert "--expect 101" in err
    assert run("retry", "--expect", "100")[0] == exit_codes.FAILURE
    assert box.depth(box.letters) == 101

    assert run("retry", "--expect", "101")[0] == exit_codes.OK
    assert box.depth(box.purchases) == 101


def test_an_event_is_replayed_three_times_and_then_only_by_force(run: Run, box: LetterBox) -> None:
    for death in range(5):
        box.put([event("unlucky")], last_seen=f"2026-01-0{death + 1}T00:00:00+00:00")
        code, _, err = run("retry")
        if death < 3:
            assert code == exit_codes.OK
        else:
            assert code == exit_codes.PARTIAL
            assert "replayed 3 times" in err
            assert "unlucky" not in err
    assert box.depth(box.purchases) == 3

    assert run("retry", "--force")[0] == exit_codes.OK
    assert box.depth(box.purchases) == 5


def test_what_the_worker_would_refuse_again_is_left_until_it_is_mended(
    run: Run, box: LetterBox, tmp_path: Path
) -> None:
    wrapped = b'{"pattern": "purchase", "data": %s}' % event("bob", sale="nonsense")
    box.put([wrapped, b"no json"], "format")

    code, _, err = run("retry")
    assert code == exit_codes.PARTIAL
    assert "format 1, json 1" in err
    assert box.depth(box.letters) == 2

    sale = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"
    assert run("retry", "--set", f"saleId={sale}")[0] == exit_codes.PARTIAL
    (mended,) = box.bodies(box.purchases)
    assert json.loads(mended)["data"]["saleId"] == sale
    assert box.bodies(box.letters) == [b"no json"]
    (line,) = journal(tmp_path)
    assert line["edit"] == "saleId"
    assert sale not in json.dumps(line)


def test_a_replay_killed_in_the_middle_goes_on_with_its_plan(run: Run, box: LetterBox) -> None:
    """A letter may then arrive twice, and none is missed."""
    bodies = [event(f"user-{number}") for number in range(600)]
    box.put(bodies)
    plan = a_plan(run)

    with started("retry", "--plan", plan, "--rate", "300") as process:
        wait_until(lambda: box.depth(box.purchases) > 100, SECONDS, "it replays")
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
    wait_until(lambda: box.depth(box.letters) > 200, SECONDS, "what was held has returned")

    code, out, _ = run("retry", "--plan", plan, "--json")

    summary = json.loads(out)
    assert code == exit_codes.OK
    assert summary["done"] + summary["missing"] == 600
    arrived = box.bodies(box.purchases)
    assert set(arrived) == set(bodies)
    assert len(arrived) <= 600 + 30  # a chunk at most is sent twice
    assert box.depth(box.letters) == 0


def test_behind_a_backlog_that_never_ends_it_waits_for_its_own_events(
    run: Run, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is never empty, as in the middle of a sale; what came before ours is taken."""
    monkeypatch.setattr(watching, "_TELL_SECONDS", 0.2)
    box.put([event("ours")])
    others = [event(f"other-{number}") for number in range(60)]
    taken: list[bytes] = []
    done = threading.Event()

    def work() -> None:
        with box.channel() as channel:
            while not done.wait(0.2):
                taken.extend(channel.basic_get(box.purchases, auto_ack=True)[2] for _ in range(20))
                channel.connection.sleep(0.2)
                for body in others[:20]:
                    channel.basic_publish("", box.purchases, body)

    with box.consumer(box.purchases), ThreadPoolExecutor(1) as threads:
        with box.channel() as channel:
            for body in others:
                channel.basic_publish("", box.purchases, body)
        working = threads.submit(work)
        code, out, err = run("retry", "--json")
        done.set()
        working.result()

    assert (code, json.loads(out)["done"], json.loads(out)["stopped"]) == (exit_codes.OK, 1, None)
    assert event("ours") in taken
    assert box.depth(box.purchases) >= 40
    assert "purchases to take first" in err


def test_behind_a_queue_of_which_nothing_is_taken_it_stops_and_says_so(
    run: Run, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PATIENCE_SECONDS", 0.3)
    box.put([event("ours"), event("too")])

    with box.consumer(box.purchases), box.channel() as channel:
        channel.basic_publish("", box.purchases, event("other"))
        code, out, err = run("retry", "--json")

    assert (code, json.loads(out)["done"]) == (exit_codes.PARTIAL, 1)
    assert "nothing was taken from queue" in err
    assert "go on with: flashsale dead-letters retry --plan" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_in_order_and_says_how_to_go_on(
    run: Run, box: LetterBox, number: signal.Signals
) -> None:
    bodies = [event(f"user-{number}") for number in range(300)]
    box.put(bodies)
    plan = a_plan(run)

    with started("retry", "--plan", plan, "--rate", "50", "--json") as process:
        wait_until(lambda: box.depth(box.purchases) > 12, SECONDS, "it replays")
        process.send_signal(number)
        out, err = process.communicate(timeout=SECONDS)

    assert process.returncode == exit_codes.INTERRUPTED
    assert f"--plan {plan}" in err.decode()
    assert b"Traceback" not in err
    arrived = box.bodies(box.purchases)
    assert arrived == bodies[: json.loads(out)["done"]]
    assert box.bodies(box.letters) == bodies[len(arrived) :]


def test_while_one_replays_others_may_look_and_may_not_replay(run: Run, box: LetterBox) -> None:
    bodies = [event(f"user-{number}") for number in range(400)]
    box.put(bodies)
    plan = a_plan(run)

    with started("retry", "--plan", plan, "--rate", "200") as process:
        wait_until(lambda: box.depth(box.purchases) > 12, SECONDS, "it replays")
        code, _, err = run("discard", "--yes")
        assert code == exit_codes.FAILURE
        assert "another retry or discard" in err
        while process.poll() is None:
            assert run("groups")[0] == exit_codes.OK

    assert process.returncode == exit_codes.OK
    assert sorted(box.bodies(box.purchases)) == sorted(bodies)
    assert box.depth(box.letters) == 0


def test_discarding_asks_and_takes_what_was_chosen_for_good(
    run: Run, box: LetterBox, tmp_path: Path
) -> None:
    box.put([event("alice"), event("bob"), event("alice")])

    assert run("discard", "--user", "alice")[0] == exit_codes.USAGE
    assert box.depth(box.letters) == 3
    code, out, _ = run("discard", "--user", "alice", "--yes", "--json")

    assert code == exit_codes.OK
    assert json.loads(out)["done"] == 2
    assert box.bodies(box.letters) == [event("bob")]
    assert box.depth(box.purchases) == 0
    assert journal(tmp_path)[0]["what"] == "discard"


def test_a_plan_is_held_to_what_it_was_made_for(run: Run, box: LetterBox) -> None:
    box.put([event("alice")])
    plan = a_plan(run, "--set", "userId=bob")

    assert run("retry", "--plan", plan)[0] == exit_codes.USAGE
    assert run("discard", "--plan", plan)[0] == exit_codes.USAGE
    assert run("retry", "--plan", plan, "--user", "alice")[0] == exit_codes.USAGE
    assert run("retry", "--plan", "no-such-plan")[0] == exit_codes.FAILURE
    assert run("retry", "--set", "price=1")[0] == exit_codes.USAGE
    assert box.depth(box.letters) == 1


def test_without_a_folder_to_count_in_nothing_is_replayed(
    run: Run, box: LetterBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.put([event("alice")])
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLASHSALE_STATE_FOLDER", str(tmp_path / "file"))

    code, _, err = run("retry")

    assert code == exit_codes.FAILURE
    assert "FLASHSALE_STATE_FOLDER" in err
    assert box.depth(box.letters) == 1
