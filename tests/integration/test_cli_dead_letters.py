"""`flashsale dead-letters`, the commands that look, against a real node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pika.spec import BasicProperties

from flashsale import exit_codes
from tests.integration.conftest import Run
from tests.support.letters import SALE, LetterBox, event, listed
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.waiting import wait_until


def test_looking_changes_neither_the_letters_nor_their_order(run: Run, box: LetterBox) -> None:
    bodies = [event(f"user-{number}") for number in range(1_200)]
    box.put(bodies)

    for command in ("list", "groups", "export"):
        assert run(command)[0] == exit_codes.OK

    assert box.bodies(box.letters) == bodies


def test_letters_are_found_by_each_of_their_properties(run: Run, box: LetterBox) -> None:
    other_sale = SALE.replace("0b0e", "1c1f")
    box.put([event("alice")], "unknown_sale", last_seen="2020-01-01T00:00:00+00:00")
    box.put([event("bob", other_sale)], "constraint")
    box.put([b"no json \xff"], "encoding")

    assert [letter["userId"] for letter in listed(run, "--reason", "constraint")] == ["bob"]
    assert [letter["userId"] for letter in listed(run, "--sale", other_sale.upper())] == ["bob"]
    assert [letter["reason"] for letter in listed(run, "--user", "alice")] == ["unknown_sale"]
    assert [letter["reason"] for letter in listed(run, "--text", "NO JSON")] == ["encoding"]
    assert [letter["userId"] for letter in listed(run, "--older", "1000d")] == ["alice"]
    assert len(listed(run, "--newer", "3650d")) == 3
    both = listed(run, "--reason", "encoding", "--reason", "constraint")
    assert [letter["refusal"] for letter in both] == [None, "encoding"]


def test_a_reason_that_is_nearly_one_of_ours_is_pointed_out(run: Run, box: LetterBox) -> None:
    box.put([event("alice")], "unknown_sale")

    _, _, near = run("list", "--reason", "unknwon_sale")
    _, _, foreign = run("list", "--reason", "expired")

    assert "is it unknown_sale?" in near
    assert "reason of ours" not in foreign


def test_letters_of_any_origin_are_told_apart(run: Run, box: LetterBox) -> None:
    """The worker before this one, RabbitMQ itself, and Dramatiq leave no header of ours."""
    box.put([event("nest")], None)
    with box.channel() as channel:
        properties = BasicProperties(expiration="1", headers={"x-flashsale-reason": ["forged"]})
        channel.basic_publish("", box.purchases, b'{"queue_name": "default"}', properties)
    wait_until(lambda: box.depth(box.letters) == 2, 5, "RabbitMQ has let it expire")

    nest, expired = listed(run)

    assert (nest["reason"], nest["userId"], nest["lastSeen"]) == ("unknown", "nest", None)
    assert (expired["reason"], expired["refusal"]) == ("broker_expired", "missing")
    assert expired["firstSeen"]


def test_groups_count_causes_with_their_first_and_last_time(run: Run, box: LetterBox) -> None:
    box.put([event("a"), event("b")], "unknown_sale", last_seen="2026-01-02T00:00:00+00:00")
    box.put([event("c")], "unknown_sale", last_seen="2026-01-03T00:00:00+00:00")
    box.put([event("d")], "constraint", headers={"x-flashsale-sqlstate": "23514"})

    code, out, _ = run("groups", "--json")

    assert code == exit_codes.OK
    largest, other = json.loads(out)["groups"]
    assert (largest["reason"], largest["count"]) == ("unknown_sale", 3)
    assert largest["firstSeen"] == "2026-01-01T00:00:00+00:00"
    assert largest["lastSeen"] == "2026-01-03T00:00:00+00:00"
    assert (other["reason"], other["sqlstate"], other["count"]) == ("constraint", "23514", 1)
    assert "constraint 23514" in run("groups")[1]


def test_a_letter_is_shown_whole_and_cannot_steer_the_terminal(run: Run, box: LetterBox) -> None:
    hostile = b'{"userId": "\x1b[2Jx"}'
    box.put([hostile], "text", headers={"note\x1b[2J": "\x1b]0;x\x07"})
    (letter,) = listed(run)

    code, out, _ = run("show", letter["id"][:8])
    whole = json.loads(run("show", letter["id"], "--json")[1])["letters"][0]

    assert code == exit_codes.OK
    assert "\x1b" not in out
    assert "\\x1b[2Jx" in out
    assert whole["body"].encode() == hostile
    assert whole["headers"]["x-flashsale-attempts"] == 1


def test_a_letter_is_shown_with_the_reason_in_words(run: Run, box: LetterBox) -> None:
    why = "refused by orders_check (SQLSTATE 23514)"
    box.put([event("a")], "constraint", headers={"x-flashsale-explanation": why + "\x1b[2J"})
    (letter,) = listed(run)

    _, shown, _ = run("show", letter["id"])
    _, exported, _ = run("export")

    assert letter["explanation"] == json.loads(exported)["explanation"] == why + r"\x1b[2J"
    assert f"\nexplanation  {why}" in shown
    assert "\x1b" not in shown


def test_an_id_of_no_letter_is_an_error(run: Run) -> None:
    code, _, err = run("show", "ffff")

    assert code == exit_codes.FAILURE
    assert "ffff" in err


def test_exported_letters_come_back_byte_for_byte(run: Run, box: LetterBox, tmp_path: Path) -> None:
    bodies = [event("alice"), bytes(range(256)), b""]
    box.put(bodies)
    before = listed(run)
    file = tmp_path / "letters.jsonl"
    assert run("export", "-o", str(file))[0] == exit_codes.OK
    assert box.bodies(box.letters) == bodies

    code, out, _ = run("import", str(file), "--json")

    assert (code, json.loads(out)) == (exit_codes.OK, {"imported": 3, "refused": 0})
    after = listed(run)
    assert [letter["reason"] for letter in after] == [letter["reason"] for letter in before]
    assert [letter["firstSeen"] for letter in after] == [letter["firstSeen"] for letter in before]
    assert box.bodies(box.letters) == bodies


def test_lines_that_are_no_letters_are_named_and_left_out(
    run: Run, box: LetterBox, tmp_path: Path
) -> None:
    file = tmp_path / "letters.jsonl"
    lines = [
        '{"body": "good"}',
        "hunter2",
        "[]",
        "{}",
        '{"bodyBase64": "?"}',
        '{"body": "changed", "sha256": "00"}',
        '{"body": "", "headers": {"CC": "elsewhere"}}',
        '{"body": "", "headers": {"x-flashsale-n": [1]}}',
        '{"body": "", "headers": [1]}',
        "",
    ]
    file.write_text("\n".join(lines))

    code, _, err = run("import", str(file))

    assert code == exit_codes.PARTIAL
    assert [f"line {number}:" in err for number in range(1, 11)] == [False, *[True] * 8, False]
    assert "hunter2" not in err
    assert box.bodies(box.letters) == [b"good"]


def test_without_a_queue_or_a_node_the_next_step_is_told(
    run: Run, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEAD_LETTER_QUEUE", "no-such-queue")
    code, _, err = run("list")
    assert code == exit_codes.BROKER
    assert "'no-such-queue' does not exist" in err

    monkeypatch.setenv("RABBITMQ_URL", "amqp://shop:hunter2@127.0.0.1:1")
    code, _, err = run("groups")
    assert code == exit_codes.BROKER
    assert "127.0.0.1:1" in err
    assert "hunter2" not in err


@pytest.mark.parametrize("arguments", [{}, {"x-delivery-limit": 5}])
def test_a_quorum_queue_is_not_looked_at_without_being_told_to(
    run: Run,
    box: LetterBox,
    monkeypatch: pytest.MonkeyPatch,
    rabbitmq_server: PrivateRabbitMQ,
    arguments: dict[str, int],
) -> None:
    """Each look is counted there, and the letter dropped in the end.

    Where RabbitMQ does not tell the type, the first look shows it to the second.
    """
    queue = f"{box.letters}.quorum"
    monkeypatch.setenv("DEAD_LETTER_QUEUE", queue)
    with box.channel() as channel:
        channel.queue_declare(
            queue, durable=True, arguments={"x-queue-type": "quorum", **arguments}
        )
        channel.basic_publish("", queue, event("alice"))
    try:
        if arguments:
            run("list")
        code, _, err = run("list")
        assert code == exit_codes.FAILURE
        assert "--quorum" in err
        assert len(listed(run, "--quorum")) == 1
    finally:
        with box.channel() as channel:
            channel.queue_delete(queue)
