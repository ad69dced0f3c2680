"""What a batch remembers when it is taken apart, and what it does not show."""

from __future__ import annotations

from flashsale.batching import DONE, Batch, Delivery, Ledger, Rejection


def batch_of(*bodies: str) -> Batch[str]:
    deliveries = [Delivery(tag, body.encode()) for tag, body in enumerate(bodies, 1)]
    return Batch(Ledger(), list(bodies), deliveries)


def test_a_batch_starts_undecided() -> None:
    batch = batch_of("a", "b")

    assert batch.verdicts == [None, None]
    assert batch.undecided() == [0, 1]


def test_the_rest_holds_the_undecided_in_their_order_and_counts_the_attempt() -> None:
    batch = batch_of("a", "b", "c", "d")
    batch.verdicts = [None, DONE, None, Rejection("unreadable")]

    rest = batch.rest()

    assert rest.items == ["a", "c"]
    assert [delivery.tag for delivery in rest.deliveries] == [1, 3]
    assert rest.verdicts == [None, None]
    assert (batch.attempts, rest.attempts, rest.rest().attempts) == (0, 1, 2)


def test_parts_remember_their_channel_and_their_past() -> None:
    """Otherwise a split would let a batch of a lost channel pass, or start its counts anew."""
    batch = batch_of("a", "b", "c")
    batch.attempts = 3
    batch.unclassified_failures = 2
    batch.progress_at_failure = 17
    batch.hold_until = 5.0
    batch.received_at = 1.0

    for part in (*batch.split(1), batch.rest()):
        assert part.ledger is batch.ledger
        assert part.unclassified_failures == 2
        assert part.progress_at_failure == 17
        assert part.hold_until == 5.0
        assert part.received_at == 1.0


def test_a_split_takes_the_first_and_leaves_the_others_without_counting_an_attempt() -> None:
    batch = batch_of("a", "b", "c")
    batch.attempts = 3

    first, others = batch.split(2)

    assert (first.items, others.items) == (["a", "b"], ["c"])
    assert first.attempts == others.attempts == 3


def test_settling_all_gives_each_delivery_its_verdict() -> None:
    batch = batch_of("a", "b")
    batch.settle_all()

    assert batch.verdicts == [DONE, DONE]
    assert batch.undecided() == []


def test_a_probe_is_empty_and_belongs_to_no_channel() -> None:
    probe = Batch[str].probe()

    assert probe.is_probe
    assert probe.ledger is None
    assert not batch_of("a").is_probe


def test_the_representation_shows_no_body() -> None:
    """Dramatiq logs an actor's arguments, and the bodies name shoppers."""
    assert repr(batch_of("shopper-1", "shopper-2")) == "<Batch of 2, 0 failed attempts>"
