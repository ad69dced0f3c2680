"""A database that an administrator changes under the workers: rights, tables, read-only."""

from __future__ import annotations

from tests.torture.harness import Round
from tests.torture.scenario import scenario
from tests.torture.scenarios.interventions import altered_role
from tests.torture.stage import CANARY_PASSWORD, WORKER


@scenario("F19", "the server turns read-only, for sessions that stand and for new ones")
def read_only(round_: Round) -> None:
    round_.start()
    administrate = round_.query
    administrate("ALTER SYSTEM SET default_transaction_read_only = on")
    administrate("SELECT pg_reload_conf()")
    round_.pause(1.0, 3.0)
    administrate("ALTER SYSTEM RESET default_transaction_read_only")
    administrate("SELECT pg_reload_conf()")
    round_.healed()


@scenario("F19.session", "the sessions that stand stay read-only, as after a failover")
def read_only_sessions(round_: Round) -> None:
    round_.start()
    name = "default_transaction_read_only"
    with altered_role(round_, f"SET {name} = on", f"RESET {name}"):
        round_.pause(1.0, 3.0)
    round_.healed()


@scenario("F20.table", "the table of orders is renamed for a while")
def missing_table(round_: Round) -> None:
    _altered(round_, "ALTER TABLE orders RENAME TO away", "ALTER TABLE away RENAME TO orders")


@scenario("F20.column", "a column of orders is renamed for a while")
def missing_column(round_: Round) -> None:
    rename = "ALTER TABLE orders RENAME COLUMN {} TO {}"
    _altered(round_, rename.format("user_id", "away"), rename.format("away", "user_id"))


@scenario("F20.grant", "the right to insert orders is revoked for a while")
def missing_grant(round_: Round) -> None:
    _altered(
        round_,
        f"REVOKE INSERT ON orders FROM {WORKER}",
        f"GRANT INSERT ON orders TO {WORKER}",
    )


@scenario("F20.audit", "the audit trail's table is renamed for a while")
def missing_audit_table(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.start()
    round_.query("ALTER TABLE order_audit_trail RENAME TO away")
    round_.pause(1.0, 3.0)
    round_.query("ALTER TABLE away RENAME TO order_audit_trail")
    round_.healed()


@scenario("F21", "the password is changed, and changed back")
def wrong_password(round_: Round) -> None:
    round_.start()
    with altered_role(round_, "PASSWORD 'rotated'", f"PASSWORD '{CANARY_PASSWORD}'"):
        round_.pause(1.0, 3.0)
    round_.healed()


def _altered(round_: Round, away: str, back: str) -> None:
    """Let the schema be wrong for a while: no event is to blame, so none becomes a dead letter."""
    round_.start()
    round_.query(away)
    try:
        round_.pause(1.5, 3.0)
        round_.expect(round_.logged("work.suspended"), "the wrong schema was not reported")
    finally:
        round_.query(back)
    round_.healed()
