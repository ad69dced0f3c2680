"""How the letters of a set are taken from their queue, and what is told of a run at its end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from flashsale.dead_letters.replaying import Letters, RunOutcome, home_of, window_for
from flashsale.spreading import queue_for
from tests.support.letters import event
from tests.support.pile import LIMIT, Pile, id_of

BODIES = [event(f"user-{number}") for number in range(5)]


@pytest.fixture
def pile() -> Pile:
    return Pile()


def wanted(pile: Pile, *bodies: bytes, window: int) -> Letters:
    return Letters(pile, Counter(map(id_of, bodies)), window=window, max_event_bytes=LIMIT)


def bodies_of(letters: Letters, limit: int) -> list[bytes]:
    return [letter.body for _, letter in letters.next(limit)]


def test_letters_come_in_order_and_in_windows(pile: Pile) -> None:
    pile.put(BODIES)
    letters = wanted(pile, *BODIES, window=3)

    found = [letters.next(2) for _ in range(3)]

    assert [[letter.body for _, letter in chunk] for chunk in found] == [
        BODIES[:2],
        BODIES[2:3],
        BODIES[3:5],
    ]
    for chunk in found:
        letters.done(chunk)
    assert letters.wanted.total() == 0
    assert letters.next(2) == []
    letters.give_back()
    assert (pile.bodies(), pile.waits) == ([], [])


def test_only_as_many_of_an_id_are_taken_as_are_wanted(pile: Pile) -> None:
    pile.put([b"twin"] * 3 + [b"other"])
    letters = wanted(pile, b"twin", b"twin", b"other", window=10)

    found = letters.next(10)
    letters.done(found)
    letters.give_back()

    assert [letter.body for _, letter in found] == [b"twin", b"twin", b"other"]
    assert pile.bodies() == [b"twin"]


def test_two_of_an_id_are_both_taken_also_from_two_windows(pile: Pile) -> None:
    pile.put([b"twin"] * 3)
    letters = wanted(pile, b"twin", b"twin", window=1)

    for _ in range(2):
        found = letters.next(1)
        assert [letter.body for _, letter in found] == [b"twin"]
        letters.done(found)

    assert letters.next(1) == []


def test_letters_that_are_not_wanted_are_passed_without_a_pause(pile: Pile) -> None:
    pile.put(BODIES)
    letters = wanted(pile, BODIES[4], window=2)

    assert bodies_of(letters, 9) == [BODIES[4]]

    assert (pile.waits, pile.returns) == ([], 0)


def test_what_somebody_holds_for_a_moment_is_looked_for_three_times(pile: Pile) -> None:
    pile.put([b"other"])
    letters = wanted(pile, b"hidden", window=2)

    assert letters.next(1) == []
    assert (pile.waits, pile.returns) == ([1.0, 1.0], 2)

    pile.put_after(4.0, [b"hidden"])
    assert bodies_of(letters, 1) == [b"hidden"]


def test_no_letter_is_held_for_more_than_ten_minutes(pile: Pile) -> None:
    pile.put([b"other", b"one", b"other", b"two", b"other", b"three"])
    letters = wanted(pile, b"one", b"two", b"three", window=2)
    letters.done(letters.next(1))

    pile.now += 600
    letters.done(letters.next(1))
    assert pile.returns == 0

    pile.now += 0.1
    assert bodies_of(letters, 1) == [b"three"]
    assert pile.returns == 1


def test_what_is_given_back_is_found_again(pile: Pile) -> None:
    pile.put(BODIES[:3])
    letters = wanted(pile, *BODIES[:3], window=3)
    letters.next(1)

    letters.give_back()

    assert bodies_of(letters, 3) == BODIES[:3]


def test_a_window_is_of_five_minutes_and_of_sixteen_mebibytes() -> None:
    assert window_for(0, 1_000) == 200
    assert window_for(16_777_216 // 199, 1_000) == 199
    assert window_for(16_777_216, 1_000) == 1
    assert window_for(1, 0.5) == 150
    assert window_for(1, 0.001) == 1


def test_a_letter_goes_home_to_where_it_came_from_if_that_is_still_there(pile: Pile) -> None:
    queues = ["a", "b"]
    headers: list[dict[str, str] | None] = [{"x-flashsale-queue": name} for name in ("b", "c")]
    homes = []
    for each in (*headers, None):
        pile.put([BODIES[0]], each)
        letters = Letters(pile, Counter([id_of(BODIES[0], each)]), window=1, max_event_bytes=LIMIT)
        ((tag, letter),) = letters.next(1)
        letters.done([(tag, letter)])
        homes.append(home_of(letter, queues))

    assert homes == ["b", queue_for(BODIES[0], queues), queue_for(BODIES[0], queues)]


@pytest.mark.parametrize(
    "undone", [{"stopped": "why"}, {"failed_again": 1}, {"missing": 1}, {"left_out": 1}]
)
def test_a_run_is_complete_only_if_nothing_is_undone(undone: dict[str, Any]) -> None:
    whole, part = RunOutcome(3, done=3), RunOutcome(3, done=3, **undone)

    assert (whole.is_complete, part.is_complete) == (True, False)


def test_an_outcome_is_recorded_with_all_its_numbers() -> None:
    assert RunOutcome(6, 5, 4, 3, 2, "why").record() == {
        "planned": 6,
        "done": 5,
        "failedAgain": 4,
        "missing": 3,
        "leftOut": 2,
        "stopped": "why",
    }
