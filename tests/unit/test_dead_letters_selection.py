"""Which letters of a queue make a set, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashsale.dead_letters.choice import Choice
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.records import Records
from flashsale.dead_letters.selection import Selection, look, select_all, select_replayable
from tests.support.letters import SALE, event
from tests.support.pile import LIMIT, Pile, id_of

ALICE, BOB = event("alice"), event("bob")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(str(tmp_path)) as records:
        yield records


def replayable(pile: Pile, records: Records, **asked: Any) -> Selection:
    whole: dict[str, Any] = {
        "choice": Choice(),
        "edit": Edit({}),
        "limit": 3,
        "force": False,
        "max_event_bytes": LIMIT,
        "progress": lambda _: None,
    }
    return select_replayable(pile, records=records, **(whole | asked))


def test_a_look_shows_every_letter_and_leaves_it_in_its_place() -> None:
    pile = Pile([ALICE, BOB])
    seen: list[DeadLetter] = []

    assert look(pile, seen.append, max_event_bytes=LIMIT) == 2

    assert [letter.body for letter in seen] == pile.bodies() == [ALICE, BOB]
    assert (pile.returns, pile.quorum_refusals) == (1, 0)


def test_a_look_that_is_counted_is_asked_about() -> None:
    pile = Pile()
    pile.put([ALICE], {"x-delivery-count": 1})

    look(pile, lambda _: None, max_event_bytes=LIMIT)

    assert pile.quorum_refusals == 1


def test_a_look_judges_a_body_by_the_limit_of_the_worker() -> None:
    refusals: list[str | None] = []
    for limit in (len(ALICE), len(ALICE) - 1):
        look(Pile([ALICE]), lambda letter: refusals.append(letter.refusal), max_event_bytes=limit)

    assert refusals == [None, "too_large"]


def test_a_selection_tells_what_was_chosen_of_how_many() -> None:
    pile = Pile([b"no json", ALICE, ALICE, BOB + b" " * 9, event("carol")])
    seen: list[bytes] = []

    found = select_all(
        pile,
        Choice(sale_id=SALE, text="o"),
        max_event_bytes=LIMIT,
        progress=lambda letter: seen.append(letter.body),
    )
    alices = select_all(
        pile, Choice(user_id="alice"), max_event_bytes=LIMIT, progress=lambda _: None
    )

    assert seen == pile.bodies()
    assert found.letters == Counter(map(id_of, (BOB + b" " * 9, event("carol"))))
    assert (found.seen, found.largest_bytes) == (5, len(BOB) + 9)
    assert (alices.letters, alices.seen) == (Counter({id_of(ALICE): 2}), 5)
    assert [group.count for group in alices.groups.largest_first()] == [2]
    assert (alices.left_out, alices.exhausted, alices.refused) == (0, 0, Counter())


def test_what_was_replayed_often_enough_is_left_out(records: Records) -> None:
    pile = Pile([ALICE, BOB, ALICE])
    seen: list[bytes] = []
    records.count_replays([letter_sha256(ALICE)] * 3)
    records.count_replays([letter_sha256(BOB)] * 2)

    found = replayable(pile, records, progress=lambda letter: seen.append(letter.body))
    forced = replayable(pile, records, force=True)

    assert seen == [ALICE, BOB, ALICE]
    assert found.letters == Counter([id_of(BOB)])
    assert (found.exhausted, found.left_out, found.seen) == (2, 2, 3)
    assert forced.letters == Counter(map(id_of, pile.bodies()))
    assert (forced.exhausted, forced.left_out) == (0, 0)


def letter_sha256(body: bytes) -> str:
    found: list[str] = []
    look(Pile([body]), lambda letter: found.append(letter.sha256), max_event_bytes=LIMIT)
    return found[0]


def test_what_the_worker_would_refuse_again_is_left_out_by_reason(records: Records) -> None:
    pile = Pile([b"no json", b"{}", ALICE, b'{"userId": "u"}'])

    found = replayable(pile, records)
    chosen = replayable(pile, records, choice=Choice(text="json"))
    forced = replayable(pile, records, force=True)

    assert found.letters == Counter([id_of(ALICE)])
    assert (found.refused, found.left_out) == (Counter(missing=2, json=1), 3)
    assert (chosen.refused, chosen.seen) == (Counter(json=1), 4)
    assert (forced.letters.total(), forced.refused) == (4, Counter())


def test_an_edited_event_is_judged_as_it_would_be_sent(records: Records) -> None:
    pile = Pile([b'{"userId": "u"}', b"no json", ALICE])

    mended = replayable(pile, records, edit=Edit({"saleId": SALE}))
    broken = replayable(pile, records, edit=Edit({"saleId": "nonsense"}))
    at_limit, over_it = (
        replayable(pile, records, edit=Edit({}, ALICE), max_event_bytes=limit)
        for limit in (len(ALICE), len(ALICE) - 1)
    )

    assert (mended.letters.total(), mended.refused) == (2, Counter(not_editable=1))
    assert broken.refused == Counter(format=2, not_editable=1)
    assert at_limit.letters.total() == 3
    assert over_it.refused == Counter(too_large=3)


def test_left_out_is_what_is_refused_and_what_is_exhausted() -> None:
    assert Selection(refused=Counter(json=2, format=1), exhausted=4).left_out == 7
