"""Dead letters without a broker: read without trust, chosen, edited, carried, remembered."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties

from flashsale.batching import Delivery, Letter, Rejection
from flashsale.batching.ledger import Ledger
from flashsale.brokers.dead_letter_writer import in_short, letter_headers
from flashsale.dead_letters.choice import Choice, parse_age
from flashsale.dead_letters.editing import Edit, NotEditable
from flashsale.dead_letters.files import export_line, import_line
from flashsale.dead_letters.groups import Groups
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.records import Records, RecordsUnusable
from flashsale.dead_letters.replaying import window_for
from flashsale.private_folders import make_private

EPOCH = datetime.fromtimestamp(0, UTC)

headers = st.dictionaries(
    st.sampled_from(
        [f"x-flashsale-{name}" for name in ("reason", "sqlstate", "first-seen", "attempts")]
        + ["x-flashsale-explanation", "x-flashsale-last-seen"]
        + ["x-death", "x-delivery-count", "other"]
    ),
    st.one_of(
        st.none(),
        st.text(),
        st.integers(),
        st.binary(),
        st.datetimes(),
        st.lists(st.dictionaries(st.sampled_from(["reason", "time", "count"]), st.text())),
    ),
)


def read(body: bytes = b"{}", **ours: Any) -> DeadLetter:
    named = {f"x-flashsale-{name.replace('_', '-')}": value for name, value in ours.items()}
    return DeadLetter.read(BasicProperties(headers=named), body, max_bytes=65_536)


@given(headers, st.binary() | st.text().map(str.encode), st.integers(-(2**63), 2**63) | st.none())
def test_whatever_is_in_a_message_it_is_a_letter(
    given_headers: dict[str, Any], body: bytes, timestamp: int | None
) -> None:
    """Its words are safe to print, and it can be written down, chosen and counted."""
    properties = BasicProperties(headers=given_headers, timestamp=timestamp)

    letter = DeadLetter.read(properties, body, max_bytes=65_536)

    assert letter.reason.isprintable()
    assert len(letter.reason) <= 50
    assert (letter.explanation or "").isprintable()
    assert json.loads(json.dumps(letter.record()))["id"] == letter.id
    json.loads(export_line(letter))
    assert Choice(ids=(letter.short_id,)).takes(letter)
    Groups().add(letter)


@pytest.mark.parametrize(
    ("explanation", "kept"),
    [
        ("refused by orders_check (SQLSTATE 23514)",) * 2,
        ("refused by \x1b[2J\n\ud800", "refused by \\x1b[2J\\n\\ud800"),
        ("x" * 300, "x" * 200),
        ("\x00" * 300, "\\x00" * 50),
    ],
)
def test_an_explanation_is_written_and_read_short_and_printable(
    explanation: str, kept: str
) -> None:
    """The database's names are part of it, and anybody can write the header."""
    rejection = Rejection("constraint", explanation=explanation)
    written = letter_headers(Letter(Ledger(), Delivery(1, b""), rejection, 1, 0.0), EPOCH)

    assert written["x-flashsale-explanation"] == kept
    assert read(explanation=explanation).explanation == kept
    assert read(explanation=kept).record()["explanation"] == kept


def test_what_has_no_more_to_say_than_its_reason_has_no_explanation() -> None:
    letter = Letter(Ledger(), Delivery(1, b""), Rejection("unknown_sale"), 1, 0.0)

    assert "x-flashsale-explanation" not in letter_headers(letter, EPOCH)
    assert read(explanation=["forged"]).explanation is None


def test_the_longest_explanation_can_be_carried_out_and_in_again() -> None:
    letter = read(explanation=in_short("x" * 300))

    carried = import_line(export_line(letter).encode(), "queue")

    assert carried.headers == letter.headers


def test_a_letter_keeps_its_id_however_often_it_is_looked_at() -> None:
    first = read(last_seen="a")
    counted = BasicProperties(headers={"x-flashsale-last-seen": "a", "x-delivery-count": 3})

    assert DeadLetter.read(counted, b"{}", max_bytes=9).id == first.id
    assert read(last_seen="b").id != first.id
    assert read(b"[]", last_seen="a").id != first.id


def test_the_old_workers_count_of_repeats_tells_its_attempts() -> None:
    """Of which it wrote nothing else; what this worker has written comes first."""

    def attempts(headers: dict[str, Any]) -> int | None:
        return DeadLetter.read(BasicProperties(headers=headers), b"", max_bytes=9).attempts

    assert attempts({"x-retry-count": 3}) == 4
    assert attempts({"x-retry-count": "3"}) is None
    assert attempts({"x-retry-count": 3, "x-flashsale-attempts": 1}) == 1


def test_a_letter_of_unknown_age_is_neither_older_nor_newer() -> None:
    now = datetime.now(UTC)
    unknown, known = read(last_seen="nonsense"), read(last_seen=now.isoformat())
    before, after = Choice(died_before=now + timedelta(1)), Choice(died_after=now - timedelta(1))

    assert [choice.takes(known) for choice in (before, after)] == [True, True]
    assert [choice.takes(unknown) for choice in (before, after)] == [False, False]


def test_hostile_reasons_cannot_make_endless_groups() -> None:
    groups = Groups(limit=10)
    for number in range(100):
        groups.add(read(reason=f"r{number}"))

    largest, *others = groups.largest_first()

    assert (largest.reason, largest.count, len(others)) == ("others", 90, 10)


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "1.5h", "5 m", "99999999999d", "1w"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no age"):
        parse_age(text)


def test_an_edit_sets_keys_where_the_event_has_them_and_describes_no_value() -> None:
    edit = Edit({"userId": "carol"})

    assert json.loads(edit.apply(b'{"saleId": "s", "userId": 1}'))["userId"] == "carol"
    wrapped = json.loads(edit.apply(b'{"pattern": "p", "data": {"saleId": "s"}}'))
    assert wrapped == {"pattern": "p", "data": {"saleId": "s", "userId": "carol"}}
    assert edit.described == "userId"
    assert Edit({}).apply(b"\xff") == b"\xff"
    for body in (b"\xff", b"[]", b"", b"[" * 100_000):
        with pytest.raises(NotEditable):
            edit.apply(body)


@given(st.binary())
def test_a_body_is_carried_out_and_in_again_byte_for_byte(body: bytes) -> None:
    line = export_line(read(body, reason="json", attempts=2))

    letter = import_line(line.encode(), "queue")

    assert letter.body == body
    assert letter.headers == {"x-flashsale-reason": "json", "x-flashsale-attempts": 2}


def test_what_is_remembered_outlives_the_command(tmp_path: Path) -> None:
    letters = Counter({"ab" * 16: 2, "cd" * 16: 1})
    with Records(str(tmp_path)) as records:
        plan = records.save_plan("retry", "queue", letters, largest_bytes=7)
        records.count_replays(["ef" * 32, "ef" * 32])
        records.begin(plan)

    with Records(str(tmp_path)) as records:
        loaded = records.load_plan(plan.name)
        assert loaded == plan._replace(begun=True)
        assert (records.replays("ef" * 32), records.replays("00" * 32)) == (2, 0)
    assert (tmp_path / "dead-letters").stat().st_mode & 0o077 == 0


def test_a_damaged_file_of_records_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "dead-letters").mkdir()
    (tmp_path / "dead-letters/records.sqlite").write_bytes(b"nonsense" * 1_000)

    with pytest.raises(RecordsUnusable, match=r"dead-letters cannot be used.*STATE_FOLDER"):
        Records(str(tmp_path))


def test_the_state_folder_that_it_makes_is_one_that_the_worker_accepts(tmp_path: Path) -> None:
    umask = os.umask(0o002)
    try:
        with Records(str(tmp_path / "state")):
            make_private(tmp_path / "state")
    finally:
        os.umask(umask)


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dead-letters").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(RecordsUnusable):
        Records(str(tmp_path))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_few_letters_wait_where_they_are_large_or_slow() -> None:
    assert window_for(300, 1_000) == 200
    assert window_for(1_048_576, 1_000) == 16
    assert window_for(134_217_728, 1_000) == 1
    assert window_for(300, 0.01) == 3
