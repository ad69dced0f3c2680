"""Exported lines: what is taken back, where its limits are, and how each refusal is told."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pika.spec import BasicProperties

from flashsale.brokers.publishing import Outgoing
from flashsale.dead_letters.choice import Choice, parse_age
from flashsale.dead_letters.files import BadLine, export_line, import_line
from flashsale.dead_letters.letter import DeadLetter
from tests.support.letters import SALE, event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NO_JSON = "not one JSON document"
CHANGED = "the body is not the one of its sha256"
UNDECODABLE = "the body cannot be decoded"
NO_BODY = "neither body nor bodyBase64 is there"
FOREIGN_HEADER = "a header is none of x-flashsale-…"
UNFIT_HEADER = "a header is neither a short text nor a whole number"
# As long as AMQP's names may be.
LONGEST_NAME = "x-flashsale-".ljust(255, "n")


def letter(headers: dict[str, Any] | None = None, body: bytes = b"{}") -> DeadLetter:
    return DeadLetter.read(BasicProperties(headers=headers), body, max_bytes=65_536)


def line(**document: Any) -> bytes:
    return json.dumps({"body": "", **document}).encode()


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (b"hunter2", NO_JSON),
        (b"[" * 100_000, NO_JSON),
        (b"[]", "not a JSON object"),
        (line(sha256="00"), CHANGED),
        (line(body="changed", sha256=hashlib.sha256(b"").hexdigest()), CHANGED),
        (b'{"bodyBase64": "?"}', UNDECODABLE),
        (b'{"bodyBase64": "\\u00e9"}', UNDECODABLE),
        (b'{"body": "\\ud800"}', UNDECODABLE),
        (b"{}", NO_BODY),
        (b'{"body": 1, "bodyBase64": null}', NO_BODY),
        (line(headers=[1]), "headers is no object"),
        (line(headers={"CC": "elsewhere"}), FOREIGN_HEADER),
        (line(headers={LONGEST_NAME + "n": 1}), FOREIGN_HEADER),
        (line(headers={"x-flashsale-n": "n" * 256}), UNFIT_HEADER),
        (line(headers={"x-flashsale-n": 2**63}), UNFIT_HEADER),
        (line(headers={"x-flashsale-n": -(2**63)}), UNFIT_HEADER),
        (line(headers={"x-flashsale-n": True}), UNFIT_HEADER),
        (line(headers={"x-flashsale-n": 1.0}), UNFIT_HEADER),
        (line(headers={"x-flashsale-n": [1]}), UNFIT_HEADER),
    ],
)
def test_a_line_that_is_no_letter_is_refused_by_name(refused: bytes, why: str) -> None:
    with pytest.raises(BadLine) as refusal:
        import_line(refused, "queue")

    assert str(refusal.value) == why


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {LONGEST_NAME: 1},
        {"x-flashsale-reason": "n" * 255},
        {"x-flashsale-most": 2**63 - 1, "x-flashsale-least": 1 - 2**63},
    ],
)
def test_a_line_is_taken_up_to_what_amqp_can_carry(headers: dict[str, Any]) -> None:
    assert import_line(line(headers=headers), "queue") == Outgoing("queue", b"", headers)


def test_a_line_needs_no_more_than_a_body() -> None:
    as_it_is = Outgoing("queue", b"\xff", {})

    assert import_line(b'{"bodyBase64": "/w=="}', "queue") == as_it_is
    assert import_line(b'{"bodyBase64": "/w==", "sha256": null, "headers": null}', "queue") == (
        as_it_is
    )


def test_a_letter_is_carried_out_with_its_record_and_our_own_headers() -> None:
    ours = {"x-flashsale-reason": "json", "x-flashsale-at": NOW}
    died = letter({**ours, "x-death": []}, b"no json")

    assert json.loads(export_line(died)) == {
        **died.record(),
        "body": "no json",
        "headers": {"x-flashsale-reason": "json", "x-flashsale-at": str(NOW)},
    }
    binary = json.loads(export_line(letter(body=b"\xff")))
    assert (binary["bodyBase64"], "body" in binary) == ("/w==", False)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        (" 3D ", timedelta(days=3)),
        ("999999999d", timedelta(days=999_999_999)),
    ],
)
def test_an_age_is_a_number_and_its_unit(text: str, age: timedelta) -> None:
    assert parse_age(text) == age


def test_what_is_no_age_is_told_with_examples_of_ages() -> None:
    with pytest.raises(ValueError, match="age") as refusal:
        parse_age("soon")

    assert str(refusal.value) == "'soon' is no age; write it as 90s, 15m, 2h or 3d"


def test_all_that_a_choice_names_must_be_so() -> None:
    died = letter({"x-flashsale-reason": "constraint"}, event("alice"))

    for choice in (
        Choice(),
        Choice(ids=(died.id,), reasons=("constraint",), sale_id=SALE.upper(), user_id="alice"),
        Choice(ids=("zz", died.id[:1]), reasons=("json", "constraint")),
    ):
        assert choice.takes(died)
    for choice in (
        Choice(ids=(died.id + "0",), reasons=("constraint",)),
        Choice(ids=(died.id,), reasons=("json",)),
        Choice(reasons=("constraint",), user_id="Alice"),
        Choice(sale_id=SALE[:-1], user_id="alice"),
        Choice(user_id="alice", text="bob"),
        Choice(user_id="alice", died_after=NOW),
    ):
        assert not choice.takes(died)
    assert Choice(sale_id="").takes(letter())


def test_a_letter_is_newer_from_its_very_moment_on_and_older_only_before_it() -> None:
    died = letter({"x-flashsale-last-seen": NOW.isoformat()})

    assert Choice(died_after=NOW).takes(died)
    assert not Choice(died_before=NOW).takes(died)
    assert not Choice(died_after=NOW + timedelta.resolution).takes(died)
    assert Choice(died_before=NOW + timedelta.resolution).takes(died)


def test_a_text_is_looked_for_in_body_and_headers_in_any_case() -> None:
    died = letter({"x-flashsale-explanation": "By Orders_Check"}, "Größe \U0001f600".encode())

    for text in ("GRÖSSE".replace("SS", "ß"), "\U0001f600", "orders_CHECK", "X-flashsale-exp"):
        assert Choice(text=text).takes(died)
    assert not Choice(text="elsewhere").takes(died)
    assert Choice(text="end").takes(letter(body=b"\xff the end"))
