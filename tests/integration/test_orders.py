"""Orders: one outcome for each purchase, whatever its neighbours or the database do."""

from __future__ import annotations

import math
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from flashsale.errors import SystemFault, TransientFault, UnclassifiedFault
from flashsale.orders import Confirmed, Duplicate, OrderBook, Outcome, Refused
from flashsale.purchases import Purchase, Reason
from tests.support.postgres import PrivatePostgres
from tests.support.stores import Store, before_each_statement, open_store, purchases_of
from tests.support.waiting import wait_until

BATCH = 500
NO_SALE = "00000000-0000-4000-8000-000000000000"


def confirm(store: Store, purchases: Sequence[Purchase]) -> list[Outcome | None]:
    outcomes: list[Outcome | None] = [None] * len(purchases)
    OrderBook(store.database).confirm(purchases, outcomes)
    return outcomes


def numbered(sale_id: str, count: int) -> list[Purchase]:
    return purchases_of(sale_id, *(f"user-{number:03}" for number in range(count)))


@pytest.fixture
def restricted_store(postgres_server: PrivatePostgres, postgres_store: Store) -> Iterator[Store]:
    """The store of a role that may do what the worker needs, and no more."""
    role = f"worker_{uuid.uuid4().hex}"
    postgres_store.execute(f"CREATE ROLE {role} LOGIN")
    postgres_store.execute(f"GRANT SELECT ON sales TO {role}")
    postgres_store.execute(f"GRANT SELECT, INSERT ON orders TO {role}")
    ((name,),) = postgres_store.execute("SELECT current_database()")
    with open_store(postgres_server.url(name, role), migrated=True) as restricted:
        yield restricted
    postgres_store.execute(f"DROP OWNED BY {role}")
    postgres_store.execute(f"DROP ROLE {role}")


def test_each_purchase_of_a_mixed_batch_has_its_outcome_at_its_index(store: Store) -> None:
    sale_id = store.add_sale()
    confirm(store, purchases_of(sale_id, "early"))

    first, early, lost, second = confirm(
        store,
        [
            Purchase(sale_id, "first"),
            Purchase(sale_id, "early"),
            Purchase(NO_SALE, "lost"),
            Purchase(sale_id, "second"),
        ],
    )

    assert isinstance(first, Confirmed)
    assert isinstance(second, Confirmed)
    assert early == Duplicate()
    assert lost == Refused(Reason.UNKNOWN_SALE)
    ids = store.order_ids()
    assert sorted(ids) == [(sale_id, "early"), (sale_id, "first"), (sale_id, "second")]
    assert first.order_id == ids[sale_id, "first"]
    assert second.order_id == ids[sale_id, "second"]


def test_a_sale_that_begins_while_its_purchase_is_written_makes_no_duplicate_of_it(
    store: Store,
) -> None:
    """Without an order it must not pass for a repeat, which would lose it: it is tried again."""
    outcomes: list[Outcome | None] = [None]

    def begin_the_sale(statement: int) -> None:
        if statement == 2:
            store.execute(
                "INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)"
                " SELECT ?, name, total_stock, starts_at, ends_at, updated_at FROM sales",
                NO_SALE,
            )

    store.add_sale()
    purchases = [Purchase(NO_SALE, "early")]
    with (
        before_each_statement(store.database, begin_the_sale),
        pytest.raises(TransientFault),
    ):
        OrderBook(store.database).confirm(purchases, outcomes)

    assert outcomes == [None]
    (outcome,) = confirm(store, purchases)
    assert isinstance(outcome, Confirmed)


def test_a_purchase_twice_in_a_batch_is_one_order_and_one_duplicate(store: Store) -> None:
    sale_id = store.add_sale()

    outcomes = confirm(store, purchases_of(sale_id, "twice", "once", "twice"))

    assert isinstance(outcomes[1], Confirmed)
    confirmed = [outcome for outcome in outcomes[::2] if isinstance(outcome, Confirmed)]
    assert len(confirmed) == outcomes[::2].count(Duplicate()) == 1
    assert store.order_ids()[sale_id, "twice"] == confirmed[0].order_id


def test_one_user_may_have_an_order_in_each_sale(store: Store) -> None:
    sales = [store.add_sale(), store.add_sale()]

    outcomes = confirm(store, [Purchase(sale_id, "user") for sale_id in sales])

    assert all(isinstance(outcome, Confirmed) for outcome in outcomes)


def test_a_batch_whose_reply_was_lost_is_confirmed_again_without_harm(store: Store) -> None:
    purchases = numbered(store.add_sale(), 20)
    confirm(store, purchases)
    written = store.order_ids()

    assert confirm(store, purchases) == [Duplicate()] * 20
    assert store.order_ids() == written


@pytest.mark.parametrize(
    "user_id", ["zoë", "日本", "a'b\"c\\d", "{}", "%s", "NULL", "\N{PILE OF POO}"]
)
def test_a_user_id_is_stored_code_point_for_code_point(store: Store, user_id: str) -> None:
    confirm(store, purchases_of(store.add_sale(), user_id, "neighbour"))

    assert sorted(store.users()) == sorted([user_id, "neighbour"])


def test_a_purchase_that_the_database_refuses_does_not_cost_its_neighbours(store: Store) -> None:
    sale_id = store.add_sale()
    store.forbid_bad_users()

    outcomes = confirm(store, purchases_of(sale_id, "a", "b", "bad-c", "d", "bad-e"))

    sqlstate = "23514" if store.on_postgres else None
    assert [isinstance(outcome, Confirmed) for outcome in outcomes] == [
        user_id in "abd" for user_id in ("a", "b", "bad-c", "d", "bad-e")
    ]
    assert outcomes[2] == outcomes[4] == Refused(Reason.CONSTRAINT, sqlstate)
    assert store.users() == ["a", "b", "d"]


@pytest.mark.parametrize("unsendable", ["secret\0user", "secret\nuser"])
def test_a_value_that_cannot_be_sent_is_isolated_and_not_quoted(
    postgres_store: Store, unsendable: str
) -> None:
    """Nothing is concluded from it: the purchase keeps no outcome, so it is tried again."""
    purchases = purchases_of(postgres_store.add_sale(), "a", unsendable, "c")
    outcomes: list[Outcome | None] = [None] * 3

    with pytest.raises(UnclassifiedFault) as caught:
        OrderBook(postgres_store.database).confirm(purchases, outcomes)

    assert [outcome is None for outcome in outcomes] == [False, True, False]
    assert postgres_store.users() == ["a", "c"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", [1, 2, 5, 50])
@pytest.mark.parametrize("kinds", [("bad",), ("riddle",), ("bad", "riddle")])
def test_the_statements_that_bad_purchases_cost_are_bounded(
    store: Store, kinds: Sequence[str], bad: int
) -> None:
    """2·log2(batch) more statements for each that is bad, and not one for each good."""
    purchases = numbered(store.add_sale(), BATCH)
    for number in range(bad):
        at = number * BATCH // bad
        user_id = f"{kinds[number % len(kinds)]}-{number}"
        purchases[at] = Purchase(purchases[at].sale_id, user_id)
    store.forbid_bad_users()
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        outcomes = confirm(store, purchases)

    sqlstates = {"bad": "23514", "riddle": "22012"}
    assert Counter(outcome for outcome in outcomes if isinstance(outcome, Refused)) == Counter(
        Refused(
            Reason.CONSTRAINT,
            sqlstates[kinds[number % len(kinds)]] if store.on_postgres else None,
        )
        for number in range(bad)
    )
    assert len(store.users()) == BATCH - bad
    assert len(statements) <= 1 + 2 * bad * math.log2(BATCH) + 1


def test_a_purchase_that_the_database_names_costs_two_statements(postgres_store: Store) -> None:
    """Those before it are written without it, then those after it, in pieces: no search."""
    purchases = numbered(postgres_store.add_sale(), BATCH)
    for at in range(5, BATCH, 10):
        purchases[at] = Purchase(purchases[at].sale_id, f"bad-{at:03}")
    postgres_store.forbid_bad_users()
    statements: list[int] = []

    with before_each_statement(postgres_store.database, statements.append):
        outcomes = confirm(postgres_store, purchases)

    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == BATCH // 10
    assert len(statements) <= 1 + 2 * (BATCH // 10) + BATCH // 64


def test_bad_purchases_and_unknown_sales_among_them_do_not_multiply(store: Store) -> None:
    sale_id = store.add_sale()
    purchases = numbered(sale_id, BATCH)
    purchases[7] = Purchase(sale_id, "riddle")
    purchases[::5] = [Purchase(str(uuid.uuid4()), "lost") for _ in purchases[::5]]
    store.forbid_bad_users()
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        outcomes = confirm(store, purchases)

    assert outcomes.count(Refused(Reason.UNKNOWN_SALE)) == BATCH // 5
    for_the_unknown = 1
    assert len(statements) <= 1 + 2 * math.log2(BATCH) + 1 + for_the_unknown


def test_unknown_sales_cost_one_statement_whatever_their_number(store: Store) -> None:
    purchases = numbered(store.add_sale(), BATCH)
    purchases[::2] = [Purchase(str(uuid.uuid4()), "lost") for _ in purchases[::2]]
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        outcomes = confirm(store, purchases)

    assert outcomes.count(Refused(Reason.UNKNOWN_SALE)) == BATCH // 2
    assert len(statements) == 2


def test_a_good_batch_is_one_statement(store: Store) -> None:
    purchases = numbered(store.add_sale(), BATCH)
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        confirm(store, purchases)

    assert len(statements) == 1


def test_a_probe_of_working_tables_changes_nothing(store: Store) -> None:
    confirm(store, [])

    assert store.users() == []


@pytest.mark.parametrize(
    ("damage", "sqlstate"),
    [
        ("ALTER TABLE orders RENAME TO elsewhere", "42P01"),
        ("ALTER TABLE sales RENAME TO elsewhere", "42P01"),
        ("ALTER TABLE orders RENAME COLUMN user_id TO buyer", "42703"),
        ("DROP INDEX orders_sale_id_user_id_key", "42P10"),
    ],
)
def test_a_probe_fails_where_the_tables_are_not_as_needed(
    store: Store, damage: str, sqlstate: str
) -> None:
    store.execute(damage)

    with pytest.raises(SystemFault) as caught:
        confirm(store, [])

    assert caught.value.sqlstate == (sqlstate if store.on_postgres else None)


def test_a_probe_fails_on_a_server_that_is_read_only(
    postgres_store: Store, postgres_url: str
) -> None:
    ((name,),) = postgres_store.execute("SELECT current_database()")
    postgres_store.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    with (
        open_store(postgres_url, migrated=True) as read_only,
        pytest.raises(SystemFault, match="25006"),
    ):
        confirm(read_only, [])


def test_a_probe_fails_once_a_grant_is_revoked(
    postgres_store: Store, restricted_store: Store
) -> None:
    confirm(restricted_store, [])
    ((role,),) = restricted_store.execute("SELECT current_user")
    postgres_store.execute(f"REVOKE INSERT ON orders FROM {role}")

    with pytest.raises(SystemFault, match="42501"):
        confirm(restricted_store, [])


def test_reading_sales_and_writing_orders_is_all_the_rights_it_needs(
    postgres_store: Store, restricted_store: Store
) -> None:
    purchases = purchases_of(postgres_store.add_sale(), "a", "a", "b")

    confirm(restricted_store, purchases)

    assert postgres_store.users() == ["a", "b"]


def test_what_was_reached_before_the_system_failed_is_known(store: Store) -> None:
    """The batch is taken apart for its bad purchase; the table goes when half is settled."""
    sale_id = store.add_sale()
    store.forbid_bad_users()
    purchases = purchases_of(sale_id, "a", "bad", "c", "d")
    outcomes: list[Outcome | None] = [None] * 4
    # After all four and "a"; SQLite does not name the bad one, so also the first half and "bad".
    second_half = 3 if store.on_postgres else 5

    def rename_orders(statement: int) -> None:
        if statement == second_half:
            store.execute("ALTER TABLE orders RENAME TO elsewhere")

    with (
        before_each_statement(store.database, rename_orders),
        pytest.raises(SystemFault),
    ):
        OrderBook(store.database).confirm(purchases, outcomes)

    assert isinstance(outcomes[0], Confirmed)
    assert isinstance(outcomes[1], Refused)
    assert outcomes[2:] == [None, None]


def test_orders_are_known_as_written_where_the_look_at_the_others_fails(
    postgres_server: PrivatePostgres, postgres_store: Store
) -> None:
    """The insert has committed: what follows for the rows it did not return cannot undo it."""
    sale_id = postgres_store.add_sale()
    confirm(postgres_store, purchases_of(sale_id, "early"))
    purchases = purchases_of(sale_id, "new", "early")
    outcomes: list[Outcome | None] = [None, None]
    ((name,),) = postgres_store.execute("SELECT current_database()")

    def cut_connection(statement: int) -> None:
        if statement == 2:
            administrator = postgres_server.connect()
            administrator.cursor().execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
            administrator.close()

    with (
        before_each_statement(postgres_store.database, cut_connection),
        pytest.raises(TransientFault),
    ):
        OrderBook(postgres_store.database).confirm(purchases, outcomes)

    assert outcomes == [Confirmed(postgres_store.order_ids()[sale_id, "new"]), None]


@pytest.mark.parametrize("neighbours", [[], ["neighbour"]])
def test_a_sale_that_is_deleted_during_the_insert_is_unknown(
    postgres_server: PrivatePostgres, postgres_store: Store, neighbours: list[str]
) -> None:
    """The join still saw the sale and the foreign key did not: no doing of the event's."""
    gone, kept = postgres_store.add_sale(), postgres_store.add_sale()
    ((name,),) = postgres_store.execute("SELECT current_database()")
    outcomes: list[list[Outcome | None]] = []
    purchases = [Purchase(gone, "user"), *purchases_of(kept, *neighbours)]
    administrator = postgres_server.connect(name)
    administrator.autocommit = False
    administrator.cursor().execute("DELETE FROM sales WHERE id = %s", (gone,))
    worker = threading.Thread(target=lambda: outcomes.append(confirm(postgres_store, purchases)))
    worker.start()
    wait_until(
        lambda: postgres_store.execute("SELECT 1 FROM pg_locks WHERE NOT granted"),
        5,
        "the insert waits for the delete",
    )
    administrator.commit()
    administrator.close()
    worker.join()

    ((of_gone_sale, *others),) = outcomes
    assert isinstance(of_gone_sale, Refused)
    assert of_gone_sale.reason is Reason.UNKNOWN_SALE
    assert all(isinstance(outcome, Confirmed) for outcome in others)
    assert postgres_store.users() == neighbours


def test_a_table_that_an_administrator_has_locked_is_bad_luck(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    with open_store(postgres_url, migrated=True, statement_timeout_seconds=0.2) as store:
        purchases = purchases_of(store.add_sale(), "user")
        ((name,),) = store.execute("SELECT current_database()")
        administrator = postgres_server.connect(name)
        administrator.autocommit = False
        administrator.cursor().execute("LOCK TABLE orders")

        with pytest.raises(TransientFault, match="55P03"):
            confirm(store, purchases)
        administrator.rollback()
        administrator.close()

        assert isinstance(confirm(store, purchases)[0], Confirmed)


def test_workers_with_the_same_purchases_in_opposite_orders_do_not_deadlock(store: Store) -> None:
    rounds = [numbered(store.add_sale(), 100) for _ in range(20)]
    together = threading.Barrier(2)
    confirmed: list[Outcome | None] = []
    failures: list[Exception] = []

    def work(step: int) -> None:
        try:
            for purchases in rounds:
                together.wait(30)
                confirmed.extend(confirm(store, purchases[::step]))
        except Exception as error:  # noqa: BLE001  (whatever it is, the test is to show it)
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    ids = [outcome.order_id for outcome in confirmed if isinstance(outcome, Confirmed)]
    assert sorted(ids) == sorted(store.order_ids().values())
    assert len(ids) == 2_000


def test_a_probe_that_a_table_refuses_blames_the_system(postgres_store: Store) -> None:
    """There is no event that it could be the fault of."""
    postgres_store.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE check_violation; END'"
    )
    postgres_store.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON orders EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(SystemFault, match="23514"):
        confirm(postgres_store, [])
