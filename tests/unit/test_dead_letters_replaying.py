"""A replay without a node: which letters, in what order, how fast, and when it stops."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.dead_letters import replaying, watching
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.records import Records
from flashsale.dead_letters.replaying import Caps, Replay, RunOutcome
from flashsale.errors import PublishUnconfirmed
from tests.support.letters import event
from tests.support.pile import LIMIT, Pile, id_of

AGAIN = {"x-flashsale-last-seen": "2026-01-03T00:00:00+00:00"}
BODIES = [event(f"user-{number}") for number in range(12)]


@pytest.fixture
def pile(monkeypatch: pytest.MonkeyPatch) -> Pile:
    pile = Pile()
    for module in (watching, replaying):
        pile.set_clock_of(module, monkeypatch)
    return pile


class Publisher(ConfirmingPublisher):
    """Keeps what it is given, and calls `then` with each chunk of it."""

    def __init__(self, then: Callable[[list[Outgoing]], object]) -> None:
        self.published: list[Outgoing] = []
        self._then = then

    def publish(self, messages: Iterable[Outgoing]) -> int:
        chunk = list(messages)
        self.published += chunk
        self._then(chunk)
        return len(chunk)


class Run:
    """One replay of a pile, of all that is in it unless `planned` says otherwise."""

    def __init__(self, pile: Pile, records: Records) -> None:
        self.pile = pile
        self.records = records
        self.then: Callable[[list[Outgoing]], object] = lambda _: None
        self.caps = Caps(rate=20, max_failed_share=0.05, settle_seconds=5)
        self.planned = Counter(map(id_of, pile.bodies()))
        self.targets = ["purchases"]
        self.edit = Edit({})
        self.window = 5
        self.stop = threading.Event()
        self.progress: list[int] = []
        self.stages: list[tuple[int, int]] = []
        self.waited: list[int] = []

    def __call__(self) -> RunOutcome:
        self.outcome = RunOutcome(self.planned.total())
        self.publisher = Publisher(self.then)
        plan = self.records.save_plan("retry", "letters", self.planned, largest_bytes=99)
        Replay(
            queue=self.pile,
            publisher=self.publisher,
            records=self.records,
            plan=plan,
            caps=self.caps,
            targets=self.targets,
            edit=self.edit,
            outcome=self.outcome,
            max_event_bytes=LIMIT,
            window=self.window,
            progress=self.progress.append,
            on_stage=lambda sent, failed: self.stages.append((sent, failed)),
            on_wait=self.waited.append,
            stop=self.stop,
        ).run()
        return self.outcome


@pytest.fixture
def run(pile: Pile, tmp_path: Path) -> Iterator[Run]:
    pile.put(BODIES)
    with Records(str(tmp_path)) as records:
        yield Run(pile, records)


def test_a_replay_sends_its_letters_in_stages_and_at_its_pace(run: Run) -> None:
    outcome = run()

    assert run.publisher.published == [Outgoing("purchases", body) for body in BODIES]
    # Each stage looks from the head on, five letters at a time.
    assert run.progress == [1, 3, 5, 6, 8, 10, 11, 12]
    assert run.stages == [(1, 0), (10, 0), (1, 0)]
    assert run.pile.waits == [0.05, 0.1, 0.1, 0.05, 0.1, 0.1, 0.05, 0.05]
    assert (run.pile.bodies(), run.pile.looks) == ([], 0)
    assert outcome == RunOutcome(12, done=12)
    assert outcome.is_complete
    for body in BODIES:
        assert run.records.replays(hashlib.sha256(body).hexdigest()) == 1


def test_a_long_pause_is_taken_in_parts_so_that_a_stop_is_heard(run: Run) -> None:
    run.caps = run.caps._replace(rate=2)
    run.planned = Counter(map(id_of, BODIES[:3]))

    assert run().done == 3

    assert run.progress == [1, 2, 3]
    assert run.pile.waits == [0.2, 0.2, 0.1] * 3
    assert run.publisher.published == [Outgoing("purchases", body) for body in BODIES[:3]]


def test_after_a_delay_it_catches_up_with_one_second_at_most(run: Run) -> None:
    bodies = [event(f"more-{number}") for number in range(99)]
    run.pile.put(bodies)
    run.planned.update(map(id_of, bodies))
    run.caps = run.caps._replace(rate=40)
    run.window = 7

    def delay(_: list[Outgoing]) -> None:
        if len(run.publisher.published) == 15:
            run.pile.now += 5

    run.then = delay
    run()

    assert run.progress[-1] == 111
    assert run.stages == [(1, 0), (10, 0), (100, 0)]
    # 11 letters at 40 a second; then the delay, 40 letters at once, and 60 letters at their pace.
    assert run.pile.elapsed == pytest.approx(11 / 40 + 5 + 60 / 40)


def test_an_edited_event_is_what_is_sent_counted_and_watched_for(run: Run) -> None:
    run.planned = Counter([id_of(BODIES[0])])
    run.edit = Edit({}, b"edited")
    run.then = lambda _: run.pile.put([b"edited"], AGAIN)

    outcome = run()

    assert run.publisher.published == [Outgoing("purchases", b"edited")]
    assert run.records.replays(hashlib.sha256(b"edited").hexdigest()) == 1
    assert (outcome.failed_again, outcome.stopped) == (1, "1 of the last 1 failed again")
    assert not outcome.is_complete


def fail_again(run: Run) -> Callable[[list[Outgoing]], None]:
    return lambda chunk: run.pile.put([message.body for message in chunk], AGAIN)


def test_a_replay_stops_after_a_stage_of_which_too_much_failed_again(run: Run) -> None:
    run.caps = run.caps._replace(max_failed_share=0.1)
    run.then = lambda chunk: len(run.publisher.published) > 8 and fail_again(run)(chunk[:1])

    outcome = run()

    assert run.stages == [(1, 0), (10, 2)]
    assert outcome == RunOutcome(12, 11, failed_again=2, stopped="2 of the last 10 failed again")
    assert len(run.pile.bodies()) == 1 + 2


def test_a_replay_goes_on_where_as_much_failed_again_as_may(run: Run) -> None:
    run.caps = run.caps._replace(max_failed_share=1)
    run.then = fail_again(run)

    outcome = run()

    assert run.stages == [(1, 1), (10, 10), (1, 1)]
    assert outcome == RunOutcome(12, done=12, failed_again=12)


def test_why_the_worker_takes_nothing_is_told_before_what_failed_again(run: Run) -> None:
    run.pile.consumed = {"purchases"}
    run.pile.lengths["purchases"] = lambda _: 1
    run.then = fail_again(run)

    outcome = run()

    assert (outcome.done, outcome.failed_again, run.stages) == (1, 1, [(1, 1)])
    assert "nothing was taken from queue 'purchases'" in str(outcome.stopped)
    assert run.waited == [1] * 12


def test_a_stage_is_watched_for_as_long_as_was_asked(run: Run) -> None:
    run.pile.consumed = {"purchases"}

    run()

    assert run.pile.elapsed == pytest.approx(12 / 20 + 3 * 5)


def test_what_was_gone_through_in_vain_is_given_back(run: Run) -> None:
    run.planned = Counter([id_of(BODIES[0]), "00" * 16])

    assert run() == RunOutcome(2, done=1, missing=1)

    assert run.pile.bodies() == BODIES[1:]


def test_letters_that_are_not_there_are_missing(run: Run) -> None:
    run.planned.update(["00" * 16, "00" * 16, "11" * 16])

    outcome = run()

    assert outcome == RunOutcome(15, done=12, missing=3)
    assert not outcome.is_complete


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_request_to_stop_is_heard_between_two_chunks(run: Run, after: int) -> None:
    if after == 0:
        run.stop.set()
    run.then = lambda _: len(run.publisher.published) >= after and run.stop.set()

    outcome = run()

    assert outcome == RunOutcome(12, done=after, stopped="interrupted")
    assert run.pile.bodies() == BODIES[after:]
    assert sum(sent for sent, _ in run.stages) == after
    assert run.pile.elapsed < 0.6


def test_what_was_not_confirmed_stays_among_the_letters(run: Run) -> None:
    run.caps = run.caps._replace(rate=40)

    def refuse(chunk: list[Outgoing]) -> None:
        if len(chunk) > 1:
            raise PublishUnconfirmed("refused", unconfirmed={1}, taken=3)

    run.then = refuse
    with pytest.raises(PublishUnconfirmed):
        run()

    assert (run.outcome.done, run.progress) == (3, [1])
    run.pile.give_back()
    assert run.pile.bodies() == [BODIES[2], *BODIES[4:]]
