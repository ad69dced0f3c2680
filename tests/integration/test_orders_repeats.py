"""Many purchases at once are taken for new ones, until a repeat shows that they are not."""

from __future__ import annotations

import itertools

import pytest

from flashsale.errors import SystemFault
from flashsale.orders import _MANY, Confirmed, Duplicate, OrderBook, Outcome, Refused
from flashsale.purchases import Purchase, Reason
from tests.simulation.clock import Clock
from tests.support.stores import (
    NO_SALE,
    Store,
    before_each_statement,
    numbered_purchases,
    purchases_of,
)

A_MINUTE = 60.0


@pytest.mark.parametrize("count", [_MANY - 1, _MANY, 1_000])
def test_among_many_each_has_the_outcome_that_it_would_have_alone(
    postgres_store: Store, count: int
) -> None:
    sale_id = postgres_store.add_sale()
    purchases = numbered_purchases(sale_id, count)
    (early,) = postgres_store.confirm([purchases[1]])
    purchases[2] = Purchase(NO_SALE, "lost")
    purchases[-1] = purchases[3]

    outcomes = postgres_store.confirm(purchases)

    assert isinstance(early, Confirmed)
    assert outcomes[1] == Duplicate()
    assert outcomes[2] == Refused(Reason.UNKNOWN_SALE)
    assert sorted(isinstance(outcomes[at], Confirmed) for at in (3, -1)) == [False, True]
    assert sum(isinstance(outcome, Confirmed) for outcome in outcomes) == count - 3
    ids = {outcome.order_id for outcome in (early, *outcomes) if isinstance(outcome, Confirmed)}
    assert ids == set(postgres_store.order_ids().values())


def test_a_repeat_costs_a_failed_statement_and_no_other_does_within_a_minute(
    postgres_store: Store,
) -> None:
    """Each would be written anew, and stand in the server's log with its values."""
    sale_id = postgres_store.add_sale()
    known = purchases_of(sale_id, "known")
    clock = Clock()
    book = OrderBook(postgres_store.database, clock)

    batches = itertools.count()

    def statements(*, with_repeat: bool) -> int:
        batch = next(batches)
        users = [f"{batch}-{number}" for number in range(_MANY)]
        purchases = purchases_of(sale_id, *users) + (known if with_repeat else [])
        outcomes: list[Outcome | None] = [None] * len(purchases)
        counted: list[int] = []
        with before_each_statement(postgres_store.database, counted.append):
            book.confirm(purchases, outcomes)
        assert (Duplicate() in outcomes) == with_repeat
        return len(counted)

    postgres_store.confirm(known)

    assert statements(with_repeat=False) == 1
    assert statements(with_repeat=True) == 3, "in vain, without the repeat, and why it was not new"
    assert statements(with_repeat=True) == 2
    clock.advance(0.9 * A_MINUTE)
    assert statements(with_repeat=True) == 2
    clock.advance(0.9 * A_MINUTE)
    assert statements(with_repeat=True) == 2, "a minute after the last repeat, not the first"
    clock.advance(A_MINUTE)
    assert statements(with_repeat=True) == 3


@pytest.mark.parametrize("count", [1, _MANY])
def test_where_the_index_is_gone_nothing_is_written_that_it_might_have_refused(
    postgres_store: Store, count: int
) -> None:
    purchases = numbered_purchases(postgres_store.add_sale(), count)
    postgres_store.execute("DROP INDEX orders_sale_id_user_id_key")

    with pytest.raises(SystemFault, match="42P10"):
        postgres_store.confirm(purchases)

    assert postgres_store.users() == []
