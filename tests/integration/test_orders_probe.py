"""A probe: whether orders could be written, without writing one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from flashsale.errors import SystemFault
from tests.support.postgres import PrivatePostgres
from tests.support.stores import Store, open_store, purchases_of


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


def test_a_probe_of_working_tables_changes_nothing(store: Store) -> None:
    store.confirm([])

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
        store.confirm([])

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
        read_only.confirm([])


def test_a_probe_fails_once_a_grant_is_revoked(
    postgres_store: Store, restricted_store: Store
) -> None:
    restricted_store.confirm([])
    ((role,),) = restricted_store.execute("SELECT current_user")
    postgres_store.execute(f"REVOKE INSERT ON orders FROM {role}")

    with pytest.raises(SystemFault, match="42501"):
        restricted_store.confirm([])


def test_reading_sales_and_writing_orders_is_all_the_rights_it_needs(
    postgres_store: Store, restricted_store: Store
) -> None:
    purchases = purchases_of(postgres_store.add_sale(), "a", "a", "b")

    restricted_store.confirm(purchases)

    assert postgres_store.users() == ["a", "b"]


def test_a_probe_that_a_table_refuses_blames_the_system(postgres_store: Store) -> None:
    """There is no event that it could be the fault of."""
    postgres_store.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE check_violation; END'"
    )
    postgres_store.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON orders EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(SystemFault) as caught:
        postgres_store.confirm([])

    assert str(caught.value) == "the tables refuse even no rows (SQLSTATE 23514)"
