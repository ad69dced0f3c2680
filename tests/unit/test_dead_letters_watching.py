"""Whether replayed events have died again: what is waited for, and what is counted."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from itertools import islice

import pytest

from flashsale.dead_letters import watching
from flashsale.dead_letters.watching import Watch, stages
from tests.support.letters import event
from tests.support.pile import LIMIT, Pile, id_of

AGAIN = {"x-flashsale-last-seen": "2026-01-03T00:00:00+00:00"}


@pytest.fixture
def pile(monkeypatch: pytest.MonkeyPatch) -> Pile:
    pile = Pile()
    pile.set_clock_of(watching, monkeypatch)
    return pile


class Watching:
    """A watch over a pile, and what it has told."""

    def __init__(
        self, pile: Pile, *targets: str, settle_seconds: float = 5.0, planned: tuple[str, ...] = ()
    ) -> None:
        self.told: list[int] = []
        self.stop = threading.Event()
        self.watch = Watch(
            pile,
            targets,
            planned=Counter(planned),
            settle_seconds=settle_seconds,
            max_event_bytes=LIMIT,
            on_wait=self.told.append,
            stop=self.stop,
        )


def test_stages_grow_tenfold_up_to_ten_thousand() -> None:
    assert list(islice(stages(), 7)) == [1, 10, 100, 1_000, 10_000, 10_000, 10_000]


def test_what_is_sent_is_known_by_its_fingerprint(pile: Pile) -> None:
    bodies = [b"one", b"two"]

    fingerprints = Watching(pile).watch.expect(bodies)

    assert fingerprints == [hashlib.sha256(body).hexdigest() for body in bodies]


def test_it_waits_until_all_that_was_there_has_been_taken_and_then_settles(pile: Pile) -> None:
    """Whatever comes meanwhile is not waited for."""
    pile.consumed = {"purchases"}
    lengths = {0.0: 5, 0.1: 4, 0.2: 6, 0.3: 3, 0.4: 2, 0.5: 1}
    pile.lengths["purchases"] = lambda elapsed: lengths.get(elapsed, 9)
    given_back: list[float] = []
    watching_it = Watching(pile, "purchases", settle_seconds=0.25)

    assert watching_it.watch.settle(lambda: given_back.append(pile.elapsed)) is None

    assert given_back == [0.0]
    assert pile.waits == [*[0.1] * 4, 0.1, 0.1, 0.05]
    assert watching_it.told == []


def test_a_single_purchase_before_ours_is_waited_for(pile: Pile) -> None:
    pile.consumed = {"purchases"}
    pile.lengths["purchases"] = lambda elapsed: int(elapsed < 0.3)

    assert Watching(pile, "purchases", settle_seconds=0.0).watch.settle(pile.give_back) is None

    assert pile.elapsed == 0.3


def test_each_queue_that_somebody_consumes_is_waited_for_in_turn(pile: Pile) -> None:
    pile.consumed = {"a", "c"}
    pile.lengths = {
        "a": lambda elapsed: int(elapsed < 1),
        "b": lambda _: 100,
        "c": lambda elapsed: int(elapsed < 3),
    }

    assert Watching(pile, "a", "b", "c").watch.settle(pile.give_back) is None

    assert pile.elapsed == 3 + 5


def test_what_nobody_consumes_is_not_waited_for(pile: Pile) -> None:
    pile.lengths["purchases"] = lambda _: 100

    assert Watching(pile, "purchases").watch.settle(pile.give_back) is None

    assert pile.elapsed == 0


def test_a_queue_of_which_nothing_is_taken_for_two_minutes_ends_the_wait(pile: Pile) -> None:
    """Meanwhile it is told every ten seconds how many purchases come first."""
    pile.consumed = {"purchases", "later"}
    pile.lengths = {
        "purchases": lambda elapsed: 7_000 if elapsed < 100 else 6_999,
        "later": lambda _: 1,
    }
    watching_it = Watching(pile, "purchases", "later")

    problem = watching_it.watch.settle(pile.give_back)

    assert problem == (
        "nothing was taken from queue 'purchases' for 120 s, where 6,999 purchases wait;"
        " `flashsale status` says more"
    )
    assert pile.elapsed == 100 + 120.1
    assert watching_it.told == [7_000] * 9 + [6_999] * 13


def test_no_fewer_than_none_are_told_to_come_first(pile: Pile) -> None:
    pile.consumed = {"purchases"}
    # A hundred come, and more than were there at first are taken at once.
    pile.lengths["purchases"] = lambda elapsed: 2 if elapsed < 9 else 100 if elapsed < 10 else 1
    watching_it = Watching(pile, "purchases", settle_seconds=0.0)

    watching_it.watch.settle(pile.give_back)

    assert (pile.elapsed, watching_it.told) == (10, [0])


def test_a_request_to_stop_ends_each_wait(pile: Pile) -> None:
    pile.consumed = {"purchases"}
    pile.lengths["purchases"] = lambda _: 1
    watching_it = Watching(pile, "purchases")
    watching_it.stop.set()

    assert watching_it.watch.settle(pile.give_back) is None

    assert pile.elapsed == 0


def test_events_that_come_back_are_counted_and_no_others(pile: Pile) -> None:
    sent = [event(f"user-{number}") for number in range(3)]
    pile.put(sent)
    watch = Watching(pile, planned=tuple(map(id_of, sent))).watch
    watch.expect(sent)

    pile.put([sent[0], event("foreign"), sent[1], b"no json"], AGAIN)
    watch.settle(pile.give_back)

    assert watch.failed_again == 2
    assert len(pile.bodies()) == 7


def test_the_letters_are_looked_through_only_where_their_number_has_changed(pile: Pile) -> None:
    sent = [event("alice"), event("bob")]
    pile.put(sent)
    watch = Watching(pile, planned=tuple(map(id_of, sent))).watch
    watch.expect(sent)
    pile.take(1, lambda held: pile.ack([held.tag]))
    watch.acknowledged += 1

    watch.settle(pile.give_back)
    assert (pile.looks, watch.failed_again) == (0, 0)

    pile.put(sent[:1], AGAIN)
    for _ in range(2):
        watch.settle(pile.give_back)
    assert (pile.looks, watch.failed_again) == (1, 1)

    pile.put(sent[1:], AGAIN)
    watch.settle(pile.give_back)
    assert (pile.looks, watch.failed_again) == (2, 2)


def test_what_somebody_hides_for_a_moment_has_failed_all_the_same(pile: Pile) -> None:
    watch = Watching(pile).watch
    watch.expect([event("alice")])
    pile.put([event("alice")], AGAIN)
    watch.settle(pile.give_back)

    pile.take(1, lambda _: None)
    watch.settle(lambda: None)

    assert (pile.looks, watch.failed_again) == (2, 1)
