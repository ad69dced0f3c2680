"""Runs over a plan without a node: what they are made of, and how each is noted."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.dead_letters import replaying, running, watching
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.records import Records
from flashsale.dead_letters.replaying import Caps, RunOutcome
from flashsale.dead_letters.running import caps_of, discard, replay
from flashsale.settings import Settings
from tests.support.letters import event
from tests.support.pile import Pile, id_of

ALICE = event("alice")
AGAIN = {"x-flashsale-last-seen": "2026-01-03T00:00:00+00:00"}
SETTINGS = Settings()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(str(tmp_path)) as records:
        yield records


def noted_by(records: Records) -> dict[str, Any]:
    (line,) = (records.folder / "journal.jsonl").read_text().splitlines()
    noted: dict[str, Any] = json.loads(line)
    return noted


def test_the_caps_are_those_of_the_environment() -> None:
    settings = Settings(replay_rate=7.0, replay_max_failed_share=0.5, replay_settle_seconds=3.0)

    assert caps_of(settings) == Caps(rate=7.0, max_failed_share=0.5, settle_seconds=3.0)


class Discard:
    """A run over a plan of all letters of a pile, and what it has told."""

    def __init__(self, pile: Pile, records: Records) -> None:
        self.pile = pile
        self.records = records
        self.planned = Counter(map(id_of, pile.bodies()))
        self.stop = threading.Event()
        self.progress: list[int] = []
        self.tell: Callable[[int], object] = self.progress.append

    def __call__(self) -> RunOutcome:
        plan = self.records.save_plan("discard", "letters", self.planned, largest_bytes=99)
        self.plan = plan.name
        outcome = RunOutcome(self.planned.total())
        discard(
            self.pile,
            self.records,
            plan,
            SETTINGS,
            outcome=outcome,
            progress=self.tell,
            stop=self.stop,
        )
        return outcome


def test_a_set_is_discarded_in_chunks_and_noted(
    records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    run = Discard(Pile(event(f"user-{number}") for number in range(450)), records)
    run.planned["00" * 16] = 2
    run.pile.put([b"later"])
    caplog.set_level(logging.INFO)

    outcome = run()

    assert outcome == RunOutcome(452, done=450, missing=2)
    assert run.progress == [200, 400, 450]
    assert run.pile.bodies() == [b"later"]
    assert records.load_plan(run.plan).begun
    noted = noted_by(records)
    about = {"what": "discard", "plan": run.plan, "queue": "letters", "failure": None}
    assert noted == {"at": noted["at"], "by": noted["by"], **about, **outcome.record()}
    (logged,) = (record for record in caplog.records if record.msg == "dead_letters.run_ended")
    assert logged.levelno == logging.INFO
    assert {name: logged.__dict__[name] for name in noted} == noted


def test_a_discard_that_is_interrupted_says_so_and_claims_no_letter_missing(
    records: Records,
) -> None:
    run = Discard(Pile(event(f"user-{number}") for number in range(450)), records)
    run.tell = lambda _: run.stop.set()

    assert run() == RunOutcome(450, done=200, stopped="interrupted")

    assert len(run.pile.bodies()) == 250


def test_a_run_that_fails_is_noted_with_its_failure(records: Records) -> None:
    run = Discard(Pile([ALICE]), records)

    def fail(_: int) -> None:
        raise TimeoutError

    run.tell = fail
    with pytest.raises(TimeoutError):
        run()

    noted = noted_by(records)
    assert (noted["failure"], noted["done"]) == ("TimeoutError", 1)


class Publisher(ConfirmingPublisher):
    """Takes all that it is given; of each, one letter comes back at once."""

    pile: Pile
    made: list[Publisher]

    def __init__(self, urls: Sequence[str], name: str) -> None:
        self.urls, self.name = urls, name
        self.published: list[Outgoing] = []
        self.closed = False
        self.made.append(self)

    def publish(self, messages: Iterable[Outgoing]) -> int:
        chunk = list(messages)
        self.published += chunk
        self.pile.put([message.body for message in chunk], AGAIN)
        return len(chunk)

    def close(self) -> None:
        self.closed = True


def test_a_replay_is_made_of_its_plan_the_caps_and_the_environment(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        broker_urls=("amqp://there",), purchase_queues=("purchases",), max_event_bytes=len(ALICE)
    )
    Publisher.pile = pile = Pile([ALICE])
    Publisher.made = []
    pile.consumed = {"purchases"}
    pile.lengths["purchases"] = lambda elapsed: 3 if elapsed < 65 else 0
    monkeypatch.setattr(running, "ConfirmingPublisher", Publisher)
    for module in (watching, replaying):
        pile.set_clock_of(module, monkeypatch)
    plan = records.save_plan("retry", "letters", Counter([id_of(ALICE)]), largest_bytes=4_000_000)
    outcome = RunOutcome(1)
    progress: list[int] = []
    stages: list[tuple[int, int]] = []
    waits: list[int] = []

    replay(
        pile,
        records,
        plan,
        settings,
        outcome=outcome,
        caps=Caps(rate=0.02, max_failed_share=1.0, settle_seconds=7.0),
        edit=Edit({"userId": "carol"}),
        progress=progress.append,
        on_stage=lambda sent, failed: stages.append((sent, failed)),
        on_wait=waits.append,
        stop=threading.Event(),
    )

    (publisher,) = Publisher.made
    assert (publisher.urls, publisher.name) == (("amqp://there",), "flashsale replay")
    assert publisher.closed
    (sent,) = publisher.published
    assert (sent.routing_key, json.loads(sent.body)["userId"]) == ("purchases", "carol")
    assert (progress, stages, waits) == ([1], [(1, 1)], [3])
    assert outcome == RunOutcome(1, done=1, failed_again=1)
    # Four of the largest in 16 MiB; 50 s a letter, 15 s until the worker has it, and 7 s more.
    assert pile.windows == {4}
    assert pile.elapsed == 50 + 15 + 7
    noted = noted_by(records)
    assert (noted["what"], noted["edit"], noted["failure"]) == ("retry", "userId", None)
    assert (noted["done"], noted["failedAgain"]) == (1, 1)
    assert records.load_plan(plan.name).begun


def test_few_letters_wait_with_their_bodies_where_a_discard_has_large_ones(
    records: Records,
) -> None:
    pile = Pile([ALICE])
    plan = records.save_plan("discard", "letters", Counter([id_of(ALICE)]), largest_bytes=4_000_000)

    discard(
        pile,
        records,
        plan,
        SETTINGS,
        outcome=RunOutcome(1),
        progress=lambda _: None,
        stop=threading.Event(),
    )

    assert pile.windows == {4}
