"""A contestant counts only where its tables are exactly right: against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.contestants import Contestant
from benchmarks.race import Refused, run
from benchmarks.scaling import measure
from benchmarks.stage import Stage

_EVENTS = 200
# Writes the rows of the whole backlog as its argument says, then waits for its end.
_WORKER = """
import os, signal, sys, pika, psycopg2
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
statements, delivery = {
    "right": ([], "ack"),
    "extra": (["INSERT INTO order_audit_trail SELECT gen_random_uuid(), sale_id, user_id,"
               " event_type, metadata, now() FROM order_audit_trail LIMIT 1"], "ack"),
    "other": (["UPDATE order_audit_trail SET metadata = metadata || jsonb_build_object('orderId',"
               " gen_random_uuid()) WHERE ctid = '(0,1)'"], "ack"),
    "stray": (["UPDATE orders SET user_id = 'stranger' WHERE ctid = '(0,1)'"], "ack"),
    "unacked": ([], "hold"),
}[sys.argv[1]]
channel = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])).channel()
queue = os.environ["PURCHASE_QUEUE"]
database = psycopg2.connect(os.environ["DATABASE_URL"])
database.autocommit = True
with database.cursor() as cursor:
    for method, _, body in channel.consume(queue, inactivity_timeout=0.5):
        if method is None:
            break
        cursor.execute(
            "WITH event AS (SELECT %s::jsonb AS body), written AS (INSERT INTO orders"
            " (id, sale_id, user_id) SELECT gen_random_uuid(), (body->>'saleId')::uuid,"
            " body->>'userId' FROM event RETURNING *) INSERT INTO order_audit_trail SELECT"
            " gen_random_uuid(), sale_id, user_id, 'CONFIRMED', jsonb_build_object('orderId', id,"
            " 'processedAt', now()), now() FROM written", (body.decode(),))
        if delivery == "ack" or method.delivery_tag > 1:
            channel.basic_ack(method.delivery_tag)
    for statement in statements:
        cursor.execute(statement)
signal.sigwait([signal.SIGTERM])
"""


@pytest.fixture(scope="module")
def stage(postgres_server: object, rabbitmq_server: object) -> Iterator[Stage]:
    """Its own servers; the two others say whether they are installed at all."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def contestant() -> Contestant:
    return Contestant("flashsale", "trial", ["python", "-c", _WORKER])


def test_a_run_with_right_tables_counts_every_event(stage: Stage, contestant: Contestant) -> None:
    measured = run(stage, _that_is(contestant, "right"), events=_EVENTS)

    assert measured.events == _EVENTS
    assert measured.peak_process_bytes > 1_000_000


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("extra", f"{_EVENTS + 1} audit rows"),
        ("other", f"{_EVENTS - 1} events with"),
        ("stray", f"{_EVENTS - 1} events with"),
        ("unacked", "1 messages not acknowledged"),
    ],
)
def test_a_run_with_wrong_tables_is_refused(
    stage: Stage, contestant: Contestant, fault: str, complaint: str
) -> None:
    with pytest.raises(Refused, match=complaint):
        run(stage, _that_is(contestant, fault), events=_EVENTS)


def test_a_contestant_that_ends_early_is_refused(stage: Stage, contestant: Contestant) -> None:
    ended = replace(contestant, command=["python", "-c", "print('out of luck')"])

    with pytest.raises(Refused, match="out of luck"):
        run(stage, ended, events=_EVENTS)


def test_the_bytes_of_an_order_are_those_of_all_its_rows(stage: Stage) -> None:
    """PostgreSQL's log has each row and each of its index entries; tables have them once."""
    found = measure(stage.fresh_shop(), 5_000)

    assert found["event_bytes"] == pytest.approx(114, abs=3)
    assert found["stored_bytes"] > 2 * found["event_bytes"]
    assert found["wal_bytes"] > found["stored_bytes"]


def _that_is(contestant: Contestant, fault: str) -> Contestant:
    return replace(contestant, command=[*contestant.command, fault])
