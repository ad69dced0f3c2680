"""`flashsale doctor` names each fault of the database that is planted, and what to do about it."""

from __future__ import annotations

import time

import pytest

from flashsale import exit_codes
from flashsale.database import close_database, open_database, session
from flashsale.doctor.database import clock_skew
from flashsale.urls import parse_database_url
from tests.support.patients import Patient
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres

pytestmark = [pytest.mark.postgres, pytest.mark.rabbitmq]

DAY = 86_400


@pytest.mark.parametrize(
    ("plant", "level", "says"),
    [
        ("DROP INDEX orders_sale_id_user_id_key", "fail", "(sale_id, user_id) is not unique"),
        ("ALTER TABLE orders ALTER user_id TYPE varchar(100)", "fail", "varchar(100)"),
        ("ALTER TABLE orders ALTER created_at DROP DEFAULT", "fail", "created_at has no default"),
        ("ALTER TABLE orders ALTER status SET DEFAULT 'NEW'", "fail", "is not CONFIRMED"),
        ("ALTER TABLE orders ADD note text NOT NULL", "fail", "note demands a value"),
        ("ALTER TABLE orders DROP CONSTRAINT orders_sale_id_fkey", "fail", "foreign key to sales"),
        ("ALTER TABLE orders DROP status", "fail", "column status (varchar(50)) is missing"),
        ("DROP TABLE order_audit_trail", "fail", "order_audit_trail does not exist"),
        ("DROP INDEX idx_orders_created_at", "warn", "no valid index on (created_at DESC)"),
        ("DELETE FROM migratehistory WHERE name ~ '^003'", "fail", "not applied: 003"),
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "fail", "read-only"),
        ("ALTER DATABASE {} CONNECTION LIMIT 20", "warn", "has 20 for them"),
    ],
)
def test_each_fault_of_the_database_is_named(
    patient: Patient, plant: str, level: str, says: str
) -> None:
    patient.shop.query(plant.format(patient.shop.database_url.rpartition("/")[2]))

    code, findings = patient.examine()

    assert code == (exit_codes.FAILURE if level == "fail" else exit_codes.OK)
    named = [finding for finding in findings if says in finding["says"]]
    assert [finding["level"] for finding in named] == [level]
    assert named[0]["remedy"]


def test_more_connections_than_the_server_has_are_foreseen(patient: Patient) -> None:
    patient.set(DATABASE_URL=f"{patient.shop.database_url}?connection_limit=30")

    assert patient.examine("--processes", "3") == (exit_codes.OK, [])
    code, (finding,) = patient.examine("--processes", "4")

    assert code == exit_codes.OK
    assert (finding["check"], finding["level"]) == ("pool", "warn")
    assert "120 in all; the server has 97" in finding["says"]
    assert "lower connection_limit in DATABASE_URL to 2" in finding["remedy"]


def test_sessions_of_which_the_worker_is_told_little_count_all_the_same(
    patient: Patient, postgres_server: PrivatePostgres
) -> None:
    """Under least privilege neither the kind nor the application of others' sessions is told."""
    role = f"worker_{time.monotonic_ns()}"
    patient.shop.query(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    database = patient.shop.database_url.rpartition("/")[2]
    url = postgres_server.url(database, user=role)
    patient.set(DATABASE_URL=f"{url}?connection_limit=30")

    def others() -> int:
        _, findings = patient.examine("--processes", "4")
        (says,) = [finding["says"] for finding in findings if finding["check"] == "pool"]
        return int(says.split("others use ")[1].split()[0])

    before = others()
    connections = [postgres_server.connect() for _ in range(7)]
    after = others()
    for connection in connections:
        connection.close()

    assert after - before == 7


def test_a_right_that_the_worker_lacks_is_named_with_its_grant(
    patient: Patient, postgres_server: PrivatePostgres
) -> None:
    role = f"worker_{time.monotonic_ns()}"
    patient.shop.query(
        f"CREATE ROLE {role} LOGIN; GRANT SELECT (id) ON sales TO {role};"
        f"GRANT SELECT, INSERT ON order_audit_trail TO {role};"
        f"GRANT SELECT ON orders TO {role}; GRANT INSERT (id, sale_id) ON orders TO {role}"
    )
    database = patient.shop.database_url.rpartition("/")[2]
    patient.set(DATABASE_URL=postgres_server.url(database, user=role))

    code, findings = patient.examine()

    assert code == exit_codes.FAILURE
    assert [(f["check"], f["level"]) for f in findings] == [
        ("migrations", "unknown"),
        ("database-permissions", "fail"),
    ]
    assert findings[1]["says"].endswith("lacks INSERT (user_id) ON orders")


def test_a_standby_is_named(patient: Patient) -> None:
    with PrivatePostgres() as standby:
        standby.stop()
        (standby.folder / "data" / "standby.signal").touch()
        standby.start()
        patient.set(DATABASE_URL=standby.url())

        code, findings = patient.examine()

    assert code == exit_codes.FAILURE
    assert "is a standby" in next(f["says"] for f in findings if f["check"] == "durability")


def test_a_server_that_may_forget_commits_is_named(patient: Patient) -> None:
    with PrivatePostgres({"fsync": "off"}) as forgetful:
        patient.set(DATABASE_URL=forgetful.url())

        code, (finding,) = patient.examine()

    assert code == exit_codes.DATABASE
    assert "fsync=off" in finding["says"]
    assert finding["remedy"] == "set fsync=on and reload the server"


def test_clocks_that_differ_are_named(postgres_url: str) -> None:
    database = open_database(parse_database_url(postgres_url))
    with session(database):
        agreed = clock_skew(database, time.time)
        behind = clock_skew(database, lambda: time.time() - DAY)
    close_database(database)

    assert agreed.level == "ok"
    assert behind.level == "warn"
    assert "86,400 s behind" in behind.says


def test_a_database_that_is_away_ends_in_four(patient: Patient) -> None:
    patient.set(DATABASE_URL=f"postgresql://127.0.0.1:{free_port()}/flashsale")

    code, (finding,) = patient.examine()

    assert code == exit_codes.DATABASE
    assert finding["remedy"].startswith("check host, user, password and name in DATABASE_URL")
