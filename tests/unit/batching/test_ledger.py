"""Which tags may be acknowledged: never one above a delivery that is still open."""

from __future__ import annotations

from flashsale.batching import Ledger


def ledger_of(*tags: int) -> Ledger:
    ledger = Ledger()
    ledger.deliver(tags)
    return ledger


def test_all_that_is_settled_is_acknowledged_by_its_highest_tag() -> None:
    ledger = ledger_of(1, 2, 3)

    assert ledger.settle([3, 1, 2]) == 3
    assert ledger.acknowledge() == 3
    assert ledger.open_count == 0


def test_an_acknowledgement_stops_below_the_first_open_delivery() -> None:
    ledger = ledger_of(1, 2, 3, 4)
    ledger.settle([1, 2, 4])

    assert ledger.acknowledge() == 2
    assert ledger.unacknowledged_count == 1

    ledger.settle([3])
    assert ledger.acknowledge() == 4


def test_what_was_acknowledged_is_not_acknowledged_again() -> None:
    ledger = ledger_of(1, 2)
    ledger.settle([1])

    assert ledger.acknowledge() == 1
    assert ledger.acknowledge() is None


def test_nothing_is_acknowledged_while_the_lowest_delivery_is_open() -> None:
    ledger = ledger_of(1, 2)
    ledger.settle([2])

    assert ledger.acknowledge() is None
    assert ledger.unacknowledged_count == 1


def test_settled_deliveries_above_a_gap_can_be_acknowledged_one_by_one_and_once() -> None:
    ledger = ledger_of(1, 2, 3, 4)
    ledger.settle([4, 2])

    assert ledger.acknowledge_above_gaps() == [2, 4]
    assert ledger.acknowledge_above_gaps() == []
    assert ledger.unacknowledged_count == 0

    ledger.settle([1])
    assert ledger.acknowledge() == 1, "tag 2 is not outstanding any more, so it may not be named"
    ledger.settle([3])
    assert ledger.acknowledge() == 3


def test_only_open_deliveries_are_settled_or_given_back() -> None:
    """A verdict that comes twice, or for a delivery given back, changes nothing."""
    ledger = ledger_of(1, 2, 3)

    assert ledger.settle([1, 7]) == 1
    assert ledger.settle([1]) == 0
    assert ledger.give_back([3, 1, 2]) == [2, 3]
    assert ledger.settle([2]) == 0
    assert ledger.acknowledge() == 1


def test_a_delivery_given_back_keeps_none_above_it_waiting() -> None:
    ledger = ledger_of(1, 2, 3)
    ledger.settle([3])
    ledger.give_back([1, 2])

    assert ledger.acknowledge() == 3


def test_nothing_is_acknowledged_where_all_was_given_back() -> None:
    """None of the tags is outstanding any more: naming one would close the channel."""
    ledger = ledger_of(1, 2)
    ledger.give_back([1, 2])

    assert ledger.acknowledge() is None
