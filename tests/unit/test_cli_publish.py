"""`flashsale publish` without a broker: what it makes up, reads, paces and refuses."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest

from flashsale import exit_codes
from flashsale.cli import exits
from flashsale.cli.publish import Refusals, acceptable_lines, made_up, paced, publish
from flashsale.purchases import Purchase

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"
GOOD = Purchase(SALE, "shopper", "2026-01-02T03:04:05.678Z").encode()
LONGEST_LINE_BYTES = 1_048_576


class Trickle(io.BytesIO):
    """A stream on which a few bytes at a time arrive."""

    def read1(self, _: int | None = -1) -> bytes:
        return self.read(7)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def accepted(data: bytes, *, unchecked: bool = False) -> tuple[list[bytes], int]:
    refusals = Refusals()
    groups = acceptable_lines(Trickle(data), refusals, max_bytes=None if unchecked else 65_536)
    return [line for group in groups for line in group], refusals.count


def test_made_up_events_are_acceptable_and_each_shopper_is_new() -> None:
    events = [Purchase.parse(body) for body in made_up(SALE, 50, user_prefix="u", repeat_share=0)]

    assert {event.user_id for event in events} == {f"u{number}" for number in range(50)}
    assert {event.sale_id for event in events} == {SALE}
    assert all(event.occurred_at for event in events)


@pytest.mark.parametrize(("share", "shoppers"), [(0.05, 190), (0.5, 100), (1.0, 1)])
def test_the_repeat_share_comes_from_shoppers_who_were_there_before(
    share: float, shoppers: int
) -> None:
    bodies = made_up(SALE, 200, user_prefix="u", repeat_share=share)
    by_shopper = Counter(Purchase.parse(body).user_id for body in bodies)

    assert by_shopper.total() == 200
    assert len(by_shopper) == shoppers


def test_lines_are_taken_as_they_are_but_for_blank_ones() -> None:
    """Also the last one, which has no end, and however the bytes arrive."""
    spaced = b'  {"userId": "a", "saleId": "%s"}\r' % SALE.encode()

    assert accepted(GOOD + b"\n\n" + spaced + b"\n  \n" + GOOD) == ([GOOD, spaced, GOOD], 0)


def test_a_line_the_worker_would_refuse_is_named_with_its_number_and_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines, refused = accepted(GOOD + b'\n{"saleId": "hunter2"}\n\nhunter2\n' + GOOD)

    assert (lines, refused) == ([GOOD, GOOD], 2)
    told = capsys.readouterr().err
    assert "line 2: missing:" in told
    assert "line 4: json:" in told
    assert "hunter2" not in told


def test_endless_bad_input_does_not_fill_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert accepted(b"bad\n" * 1_000) == ([], 1_000)
    assert len(capsys.readouterr().err.splitlines()) == 21


def test_unchecked_lines_are_sent_whatever_they_are() -> None:
    assert accepted(b"bad\n" + GOOD, unchecked=True) == ([b"bad", GOOD], 0)


@pytest.mark.parametrize("unchecked", [False, True])
def test_a_line_without_an_end_is_refused_and_not_kept(unchecked: bool) -> None:
    """No part of it may be sent as if it were the line."""
    refusals = Refusals()
    stream = io.BytesIO(b"x" * (3 * LONGEST_LINE_BYTES) + b"\n" + GOOD)

    groups = list(acceptable_lines(stream, refusals, max_bytes=None if unchecked else 65_536))

    assert groups == [[GOOD]]
    assert refusals.count == 1


def test_the_pace_is_kept_and_no_event_is_lost() -> None:
    clock = Clock()
    events = [bytes([number]) for number in range(50)]

    groups = list(paced([events[:30], events[30:]], 10, clock=clock, sleep=clock.sleep))

    assert [event for group in groups for event in group] == events
    assert clock.time - 100 == pytest.approx(4.9)


def test_a_long_silence_is_not_made_up_for_by_a_burst() -> None:
    clock = Clock()
    groups = paced([[b"a"], [b"b"] * 1_000], 10, clock=clock, sleep=clock.sleep)
    next(groups)

    clock.sleep(60)

    assert len(next(groups)) == 11


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--sale", SALE],
        ["--count", "3"],
        ["--sale", SALE, "--count", "0"],
        ["--sale", "no-uuid", "--count", "3"],
        ["--sale", SALE, "--count", "3", "--user-prefix", "x" * 255],
        ["--sale", SALE, "--count", "3", "--unchecked"],
        ["--sale", SALE, "--count", "3", "--rate", "0"],
        ["-", "--sale", SALE, "--count", "3"],
        ["no-such-file.jsonl"],
        ["-", "--queue", "no queue's name"],
    ],
)
def test_wrong_usage_ends_with_its_code_before_anything_is_published(arguments: list[str]) -> None:
    assert exits.run(publish, arguments) == exit_codes.USAGE


def test_an_unreachable_broker_ends_with_its_code_and_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://shop:hunter2@127.0.0.1:1")
    events = tmp_path / "events.jsonl"
    events.write_bytes(GOOD)

    assert exits.run(publish, [str(events), "--json"]) == exit_codes.BROKER

    written = capsys.readouterr()
    assert json.loads(written.out)["published"] == 0
    assert "127.0.0.1:1 (Connection refused)" in written.err
    assert "hunter2" not in written.err
