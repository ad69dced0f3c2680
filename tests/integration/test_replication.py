"""A PostgreSQL with a synchronous standby: what is acknowledged is on both, or not acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import peewee
import pytest

from flashsale.audit_rows import AuditEntry, now, write_events
from flashsale.database import close_database, open_database, session
from flashsale.doctor.replication import examine_hosts, examine_replication
from flashsale.errors import StoreError, SystemFault, TransientFault
from flashsale.ids import new_order_ids
from flashsale.migration import migrate
from flashsale.orders import Confirmed, Duplicate, OrderBook, Outcome
from flashsale.purchases import Purchase
from flashsale.urls import parse_database_url
from tests.support.postgres import PrivatePostgres, PrivateStandby
from tests.support.stores import Store, purchases_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.postgres

STATEMENT_SECONDS = 0.5
WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def primary(postgres_server: PrivatePostgres) -> Iterator[PrivatePostgres]:
    """A server of its own: the session's may not wait for a standby."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="module")
def followed(primary: PrivatePostgres) -> Iterator[PrivateStandby]:
    with PrivateStandby(primary) as standby:
        primary.replicate_to(standby)
        yield standby


@pytest.fixture
def standby(primary: PrivatePostgres, followed: PrivateStandby) -> Iterator[PrivateStandby]:
    """It follows at the start of each test, and is started again after one that has stopped it."""
    yield followed
    started(followed)
    wait_until(lambda: not waiting(primary), 10, "no commit waits any more")


@pytest.fixture(scope="module")
def database(primary: PrivatePostgres) -> Iterator[peewee.Database]:
    database = open_database(
        parse_database_url(primary.url()), statement_timeout_seconds=STATEMENT_SECONDS
    )
    migrate(database)
    yield database
    close_database(database)


@pytest.fixture
def sale(database: peewee.Database, standby: PrivateStandby) -> str:
    return Store(database).add_sale()


def started(standby: PrivateStandby) -> None:
    try:
        _ = standby.pid
    except RuntimeError:
        standby.start()


def waiting(primary: PrivatePostgres) -> int:
    return len(primary.administer(f"SELECT 1 {WAITING}"))


@contextmanager
def interrupting(primary: PrivatePostgres, function: str) -> Iterator[None]:
    """Interrupt each commit that waits for the standby, as soon as it does."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.02):
            primary.administer(f"SELECT {function}(pid) {WAITING}")

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def confirm(
    database: peewee.Database, purchases: Sequence[Purchase]
) -> tuple[list[Outcome | None], StoreError | None]:
    outcomes: list[Outcome | None] = [None] * len(purchases)
    try:
        OrderBook(database).confirm(purchases, outcomes)
    except StoreError as fault:
        return outcomes, fault
    return outcomes, None


def give_up_a_commit(database: peewee.Database, sale: str) -> list[Purchase]:
    """Have a worker wait for the standby in vain; its connection to the server is closed then."""
    purchases = purchases_of(sale, "given-up")
    outcomes, fault = confirm(database, purchases)
    assert isinstance(fault, SystemFault)
    assert outcomes == [None]
    return purchases


def test_an_order_is_confirmed_once_the_standby_has_it(
    database: peewee.Database, standby: PrivateStandby, sale: str
) -> None:
    outcomes, fault = confirm(database, purchases_of(sale, "alice"))
    assert fault is None
    assert isinstance(outcomes[0], Confirmed)
    assert ("alice",) in standby.administer("SELECT user_id FROM orders", "flashsale")


def test_a_commit_whose_wait_is_cancelled_confirms_nothing(
    primary: PrivatePostgres, database: peewee.Database, standby: PrivateStandby, sale: str
) -> None:
    """PostgreSQL reports it as done, with a warning; the order is there, on this server alone."""
    purchases = purchases_of(sale, "bob")
    standby.crash()
    with interrupting(primary, "pg_cancel_backend"):
        outcomes, fault = confirm(database, purchases)
    assert "bob" in Store(database).users()
    assert isinstance(fault, TransientFault)
    assert outcomes == [None]

    standby.start()
    assert confirm(database, purchases) == ([Duplicate()], None)


def test_an_order_that_is_not_replicated_is_no_reason_to_take_its_repeat_for_done(
    primary: PrivatePostgres, database: peewee.Database, standby: PrivateStandby, sale: str
) -> None:
    """So it is after a worker's connection was ended, or the server crashed, in the wait."""
    purchases = purchases_of(sale, "carol")
    standby.crash()
    with interrupting(primary, "pg_terminate_backend"):
        _, fault = confirm(database, purchases)
    assert isinstance(fault, TransientFault)
    assert "carol" in Store(database).users()

    outcomes, fault = confirm(database, purchases)
    assert isinstance(fault, SystemFault)
    assert outcomes == [None]

    standby.start()
    assert confirm(database, purchases) == ([Duplicate()], None)


def test_a_warning_of_another_kind_holds_nothing_up(
    database: peewee.Database, standby: PrivateStandby, sale: str
) -> None:
    store = Store(database)
    store.execute(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE WARNING 'careful'; RETURN NULL; END $$"
    )
    store.execute("CREATE TRIGGER warn AFTER INSERT ON orders EXECUTE FUNCTION warn()")
    try:
        outcomes, fault = confirm(database, purchases_of(sale, "dave"))
    finally:
        store.execute("DROP FUNCTION warn CASCADE")
    assert fault is None
    assert isinstance(outcomes[0], Confirmed)


def test_while_a_commit_waits_in_vain_no_other_is_begun(
    primary: PrivatePostgres, database: peewee.Database, standby: PrivateStandby, sale: str
) -> None:
    """The server keeps the connection of each until the standby is back, and has not many."""
    standby.crash()
    purchases = give_up_a_commit(database, sale)

    assert waiting(primary) == 1
    for _ in range(2):
        _, fault = confirm(database, [])
        assert isinstance(fault, SystemFault)
        assert "synchronous_standby_names" in str(fault)
    assert waiting(primary) == 1

    standby.start()
    wait_until(lambda: confirm(database, []) == ([], None), 10, "the probe succeeds")
    assert confirm(database, purchases) == ([Duplicate()], None)


def test_work_goes_on_when_the_standby_is_taken_out_of_the_settings(
    primary: PrivatePostgres, database: peewee.Database, standby: PrivateStandby, sale: str
) -> None:
    standby.crash()
    purchases = give_up_a_commit(database, sale)
    try:
        primary.replicate_to()
        wait_until(lambda: confirm(database, []) == ([], None), 10, "the probe succeeds")
        assert confirm(database, purchases) == ([Duplicate()], None)
    finally:
        primary.replicate_to(standby)


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_audit_rows_leave_their_queue_once_the_standby_has_them(
    primary: PrivatePostgres,
    database: peewee.Database,
    standby: PrivateStandby,
    sale: str,
    function: str,
) -> None:
    (order_id,) = new_order_ids(1)
    rows = [AuditEntry.confirmed(sale, "erin", order_id, now())]
    standby.crash()
    with interrupting(primary, function), pytest.raises(TransientFault):
        write_events(database, rows)
    with pytest.raises(SystemFault):
        write_events(database, rows)

    standby.start()
    assert write_events(database, rows) == []


def test_a_server_without_a_standby_writes_nothing_for_a_repeat(
    postgres_store: Store,
) -> None:
    sale = postgres_store.add_sale()
    purchases = purchases_of(sale, "frank")
    confirm(postgres_store.database, purchases)

    def position() -> Any:
        ((lsn,),) = postgres_store.execute("SELECT pg_current_wal_insert_lsn()::text")
        return lsn

    quiet(position)
    before = position()
    assert confirm(postgres_store.database, purchases) == ([Duplicate()], None)
    assert position() == before


def quiet(position: Callable[[], Any]) -> None:
    """Wait until nothing else on the server writes."""

    def stands() -> bool:
        before = position()
        time.sleep(0.1)
        return bool(position() == before)

    wait_until(stands, 10, "the server is quiet")


class Asked(NamedTuple):
    level: str
    says: str


def examined(primary: PrivatePostgres, *hosts: PrivatePostgres) -> dict[str, Asked]:
    """What the doctor finds about the hosts and their replication."""
    where = ",".join(f"127.0.0.1:{host.port}" for host in hosts or (primary,))
    address = parse_database_url(f"postgresql://postgres@{where}/flashsale")
    database = open_database(address)
    try:
        with session(database):
            findings = [
                *examine_hosts(address, 2.0),
                examine_replication(database, len(address.hosts)),
            ]
    finally:
        close_database(database)
    return {
        "away" if "cannot be reached" in finding.says else finding.check: Asked(
            finding.level, finding.says
        )
        for finding in findings
    }


def test_the_doctor_knows_the_primary_from_its_standby(
    primary: PrivatePostgres, standby: PrivateStandby
) -> None:
    found = examined(primary, standby, primary)
    assert found["hosts"].says.startswith(f"127.0.0.1:{primary.port} takes writes")
    assert {asked.level for asked in found.values()} == {"ok"}


def test_the_doctor_names_two_primaries(
    primary: PrivatePostgres, standby: PrivateStandby, postgres_server: PrivatePostgres
) -> None:
    found = examined(primary, primary, postgres_server)
    assert found["hosts"].level == "fail"
    assert "both take writes" in found["hosts"].says


def test_the_doctor_names_a_host_that_is_away_and_a_standby_that_confirms_nothing(
    primary: PrivatePostgres, standby: PrivateStandby
) -> None:
    standby.crash()
    found = examined(primary, primary, standby)
    assert found["replication"].level == "fail"
    assert "none confirms" in found["replication"].says
    assert found["away"].level == "warn"


def test_the_doctor_names_a_failover_that_would_lose_orders(
    primary: PrivatePostgres, standby: PrivateStandby
) -> None:
    primary.replicate_to()
    try:
        found = examined(primary, primary, standby)
    finally:
        primary.replicate_to(standby)
    assert found["replication"].level == "warn"
    assert "a failover loses" in found["replication"].says
