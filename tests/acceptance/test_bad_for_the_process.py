"""An event that ends each process that works on it is set aside, and nobody is lost with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import RECONCILE_SOON
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.torture.fleet import Fleet
from tests.torture.inside.poison import MARK

pytestmark = pytest.mark.acceptance

#: Of the batch in which nobody was suspected, of a small one under watch, and twice alone.
DEATHS = 4


@pytest.mark.parametrize(
    ("way", "reason", "deaths"),
    [
        pytest.param("", "poison", DEATHS, id="killed as for lack of memory"),
        pytest.param("-crash", "poison", DEATHS, id="crashed in C"),
        pytest.param("-stuck", "poison", DEATHS, id="ended by the watchdog"),
        pytest.param("-memory", "unclassified", 0, id="out of memory, in Python"),
    ],
)
def test_the_event_becomes_a_dead_letter_and_its_neighbours_orders(
    way: str, reason: str, deaths: int, shop: Shop, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(40)]
    deadly = shop.event(f"{MARK}{way}")
    bodies = [shop.event(user) for user in users]
    shop.publish([*bodies[:20], deadly, *bodies[20:]])
    settings = {"FLASHSALE_STATE_FOLDER": str(tmp_path), "FLASHSALE_RETRY_MAX_SECONDS": "0.2"}
    fleet = Fleet(shop.environment() | settings | RECONCILE_SOON, masters=1, processes=1)
    # On a loaded machine an impatient watchdog may end a process that is not stuck.
    fleet.modules = ("poison", "impatient") if way == "-stuck" else ("poison",)
    try:
        fleet.start()
        shop.wait_for_orders(len(users), 60)
        wait_until(lambda: shop.ready(shop.dead_letter_queue) == 1, 60, "the event is set aside")
        shop.age_orders()
        wait_until(lambda: len(shop.confirmations()) == len(users), 15, "all have an audit row")
        assert fleet.stop() == [0]
        log = fleet.log.read_text(encoding="utf-8")
    finally:
        fleet.close()

    ((letter, headers),) = shop.take_all(shop.dead_letter_queue)
    assert (letter, headers["x-flashsale-reason"]) == (deadly, reason)
    if reason == "unclassified":
        assert headers["x-flashsale-explanation"].startswith("MemoryError at ")
        assert '"deliveries.given_up"' in log
    assert fleet.restarts == deaths, fleet.exit_codes
    shop.assert_settled(users)
    assert list((tmp_path / "suspects").glob("*")) == []
