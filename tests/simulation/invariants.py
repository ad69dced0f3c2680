"""What must hold, whatever happens."""

from __future__ import annotations

from flashsale.batching import UNCLASSIFIED_REASON, Letter
from tests.simulation.process import UNCLASSIFIED_ATTEMPTS, Process
from tests.simulation.rabbitmq import Rabbit
from tests.simulation.store import REFUSED, UNREADABLE, Store

#: Why events that are at fault themselves are dead-lettered, by the first word of their names.
REASONS = {
    b"refused": REFUSED.reason,
    b"unreadable": UNREADABLE.reason,
    b"hopeless": UNCLASSIFIED_REASON,
}


class Violation(AssertionError):
    """Something happened that must never happen, or did not happen that must."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def check_ack(body: bytes, store: Store, rabbit: Rabbit) -> None:
    """At the moment of an acknowledgement: the event is safe elsewhere already."""
    is_safe = body in store.rows or body in rabbit.confirmed
    require(is_safe, f"{body.decode()} was acknowledged and is nowhere")


def check_letter(process: Process, letter: Letter) -> None:
    """An event is dead-lettered for a fault of its own, never for bad luck or an outage."""
    body, reason = letter.delivery.body, letter.rejection.reason
    if reason == UNCLASSIFIED_REASON:
        # An event of any kind may be struck by an error that nobody knows.
        failures = process.unclassified[body]
        require(
            failures >= UNCLASSIFIED_ATTEMPTS,
            f"{body.decode()} was given up after {failures} unclassified failures",
        )
    else:
        require(REASONS.get(_kind(body)) == reason, f"{body.decode()} dead-lettered as {reason}")


def check_step(process: Process, rabbit: Rabbit) -> None:
    """After each step: nothing is uncounted, unbounded, or against the broker's rules."""
    tally, limits, name = process.tally, process.limits, process.name
    require(tally.is_conserved, f"{name} is not conserved: {tally}")
    require(tally.delivered == process.transport.received, f"{name} miscounts: {tally}")
    require(tally.open <= limits.prefetch, f"{name} has {tally.open} deliveries open")
    require(not rabbit.protocol_errors, f"{name}: {rabbit.protocol_errors}")
    batches = process.batches()
    in_flight = sum(not batch.is_probe for batch in batches)
    require(in_flight <= limits.in_flight, f"{name} has {in_flight} batches in flight")
    require(len(batches) - in_flight <= 1, f"{name} has several probes on their way")


def check_turn(process: Process) -> None:
    """After a turn of the consumer: while nothing can succeed, nothing comes, and nothing is kept
    that other workers could take; and a consumer whose workers are idle does not look stuck.
    """
    batches, name = process.batches(), process.name
    channel = process.transport.channel
    if process.breaker.hold_is_over and channel is not None:
        require(not channel.consuming, f"{name} consumes while nothing works")
        letters = len(process.transport.waiting) + len(process.transport.written)
        require(
            process.tally.open <= sum(map(len, batches)) + letters,
            f"{name} keeps what nobody works on: {process.tally}",
        )
    require(
        bool(batches) or process.consumer.stuck_seconds() == 0.0, f"{name} takes itself for stuck"
    )


def check_end(process: Process) -> None:
    """After the close of a process: it has left nothing behind."""
    require(process.tally.is_conserved, f"{process.name} is not conserved: {process.tally}")
    require(process.tally.open == 0, f"{process.name} kept deliveries: {process.tally}")
    channel = process.transport.channel
    require(channel is None or not channel.is_open, f"{process.name} left its channel open")


def check_outcome(published: set[bytes], store: Store, rabbit: Rabbit) -> None:
    """When the queue is empty: each event is a row or a dead letter, and nothing else is either."""
    dead = {body for body, _ in rabbit.dead_letters}
    lost = published - store.rows - dead
    require(not lost, f"lost: {sorted(lost)}")
    unexpected = {body for body in store.rows if _kind(body) in REASONS}
    unexpected |= (store.rows | dead) - published
    require(not unexpected, f"unexpected: {sorted(unexpected)}")


def _kind(body: bytes) -> bytes:
    return body.partition(b"-")[0]
