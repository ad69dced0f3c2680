"""A PostgreSQL with a synchronous standby: one of the two is lost, or cut off."""

from __future__ import annotations

from tests.support.waiting import wait_until
from tests.torture.harness import Round
from tests.torture.proxy import Fault
from tests.torture.scenario import scenario
from tests.torture.standby import StandbyStage, standby_of

_WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
# Two batches, an audit flush and a reconciler of each of the two workers.
_MOST_WAITING = 8


@scenario(
    "F36", "kill -9 the primary, and promote its synchronous standby under load", on=StandbyStage
)
def failover(round_: Round) -> None:
    stage = standby_of(round_)
    round_.start()
    round_.pause(0.5, 2.0)
    stage.postgres.kill()
    round_.pause(0.0, 2.0)
    stage.promote()
    round_.healed()


@scenario("F36.silent", "the primary falls silent, and is back after a failover", on=StandbyStage)
def split_brain(round_: Round) -> None:
    stage = standby_of(round_)
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "1"})
    old = stage.postgres
    round_.pause(0.5, 1.0)
    stage.to_postgres.impose(Fault(drop_replies=True))
    round_.pause(0.0, 1.0)
    stage.promote()
    round_.healed()
    stage.to_postgres.heal()
    before = old.administer("SELECT count(*) FROM orders", round_.place.database)
    stage.disconnect_workers()
    round_.healed()
    round_.pause(1.0, 2.0)
    after = old.administer("SELECT count(*) FROM orders", round_.place.database)
    round_.expect(before == after, "orders went to the old primary")


@scenario("F36.standby", "the synchronous standby is away for a while", on=StandbyStage)
def standby_away(round_: Round) -> None:
    stage = standby_of(round_)
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "1"})
    round_.pause(0.5, 1.0)
    stage.standby.crash()
    round_.expect_within(lambda: round_.logged("work.suspended"), 10, "the wait is reported")
    round_.pause(4.0, 6.0)
    ((waiting,),) = round_.query(f"SELECT count(*) {_WAITING}")
    round_.expect(waiting <= _MOST_WAITING, f"{waiting} connections wait for the standby")
    stage.standby.start()
    round_.healed()


@scenario(
    "F36.interrupted",
    "the standby is away, waiting commits are interrupted, and then the primary is lost",
    on=StandbyStage,
)
def interrupted(round_: Round) -> None:
    """What was committed on the primary alone is gone with it, and must not be acknowledged."""
    stage = standby_of(round_)
    round_.start(settings={"FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "1"})
    round_.pause(0.5, 1.0)
    stage.standby.crash()
    interrupted = 0
    for _ in range(20):
        function = round_.choice.choice(["pg_cancel_backend", "pg_terminate_backend"])
        interrupted += len(round_.query(f"SELECT {function}(pid) {_WAITING}"))
        round_.pause(0.05, 0.2)
    round_.expect(interrupted, "no commit waited for the standby")
    ((there,),) = round_.query("SELECT count(*) FROM orders")
    stage.postgres.kill()
    stage.standby.start_alone()
    stage.promote()
    round_.healed()
    round_.expect(there, "nothing was there to be lost")
    wait_until(lambda: (round_.orders() or 0) > there, 10, "the orders are written again")
