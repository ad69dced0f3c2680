"""The end of a round: everything drains, the workers stop, and each event is accounted for."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from flashsale.database import close_database, open_database
from flashsale.reconcile import Reconciler
from flashsale.urls import parse_database_url
from tests.torture.canaries import search_output, search_titles
from tests.torture.history import AuditRow, DeadLetter, Found, Key, judge

if TYPE_CHECKING:
    from tests.torture.harness import Round

#: Longer than any backoff of a round's workers.
STANDSTILL_SECONDS = 15.0

_BOOT_SECONDS = 30.0
_POLL_SECONDS = 0.1
_SETTLE_SECONDS = 20.0


def close_round(round_: Round) -> None:
    """Drain, stop the workers, and account for every event."""
    round_.load.stop()
    drained = _drain(round_)
    # One that is only just starting, or ending, would not stop as it should.
    round_.expect_within(
        lambda: round_.consumers() >= round_.workers.size, _BOOT_SECONDS, "all workers are back"
    )
    round_.report.restarts = round_.workers.restarts
    search_titles(round_)
    codes = round_.workers.stop()
    round_.expect(not any(codes), f"exit codes after SIGTERM: {codes}")
    _complete_audit(round_)
    found = _find(round_)
    round_.report.verdict = judge(round_.load.history, found)
    round_.report.problems[:0] = round_.report.verdict.problems()
    if drained:
        left = round_.report.verdict.queued
        round_.expect(not left, f"{left} events still queued after draining")
    search_output(round_)


def _drain(round_: Round) -> bool:
    """Wait until all is where it belongs, while things move."""
    before, until = None, 0.0
    while not round_.is_quiet():
        now = time.monotonic()
        progress = (round_.orders(), round_.ready(), round_.ready(round_.place.dead_letter_queue))
        if progress != before:
            before, until = progress, now + STANDSTILL_SECONDS
        elif now >= until:
            round_.expect(False, f"nothing moves, with orders, events and dead letters at {before}")
            return False
        time.sleep(_POLL_SECONDS)
    round_.expect_within(partial(_all_acknowledged, round_), _SETTLE_SECONDS, "all is acknowledged")
    return True


def _all_acknowledged(round_: Round) -> bool:
    listed = round_.stage.rabbitmq.ctl("list_queues", "--no-table-headers", "name", "messages")
    counts = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
    return all(counts[queue] == "0" for queue in round_.queues)


def _complete_audit(round_: Round) -> None:
    """Do what the next worker would do at its start: write the rows that a crash has cost."""
    database = open_database(parse_database_url(round_.stage.postgres.url(round_.place.database)))
    reconciler = Reconciler(database)
    try:
        round_.report.reconciled = reconciler.run(settling=timedelta(0)) or 0
    finally:
        reconciler.release()
        close_database(database)
    if not round_.audit_may_lag:
        lag = round_.report.reconciled
        round_.expect(not lag, f"{lag} audit rows were left to the reconciler")


def _find(round_: Round) -> Found:
    orders = round_.query("SELECT id::text, sale_id::text, user_id FROM orders")
    audit = round_.query(
        "SELECT sale_id::text, user_id, event_type, metadata->>'orderId' FROM order_audit_trail"
    )
    round_.take_dead_letters()
    return Found(
        orders=[(order_id, Key(sale_id, user_id)) for order_id, sale_id, user_id in orders],
        audit=[AuditRow(Key(sale, user), kind, order) for sale, user, kind, order in audit],
        dead_letters=[
            DeadLetter(body, headers.get("x-flashsale-reason", ""))
            for body, headers in round_.letters
        ],
        queued=[body for queue in round_.queues for body, _ in round_.take_all(queue)],
    )
