"""Events that are bad for their neighbours, or for the process that meets them."""

from __future__ import annotations

from tests.torture.harness import Round
from tests.torture.history import Event
from tests.torture.inside.poison import MARK
from tests.torture.scenario import scenario

_POISON_SECONDS = 40.0


@scenario("F31", "one event in ten is bad, of every kind")
def flood(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.events.bad_share = 0.1
    round_.start()
    round_.pause(2.0, 4.0)


@scenario("F31.most", "nine events in ten are bad")
def mostly_bad(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.events.bad_share = 0.9
    round_.start()
    round_.pause(2.0, 4.0)


@scenario("F31.repeats", "half of the events are repeats, some of them within one batch")
def repeats(round_: Round) -> None:
    round_.audit_may_lag = False
    round_.events.repeat_share = 0.5
    round_.start()
    round_.pause(2.0, 4.0)


@scenario("F32", "an event kills each process that works on it")
def poison(round_: Round) -> None:
    round_.start_workers(modules=["poison"])
    deadly = round_.events.marked(MARK)
    round_.load.publish([*round_.events.take(100), deadly, *round_.events.take(100)])
    letters = round_.place.dead_letter_queue
    bad = sum(event.key is None for event in round_.load.history.confirmed)
    # It becomes a dead letter by what it does, and not by what it says.
    round_.load.history.confirmed.remove(deadly)
    round_.load.history.confirmed.append(Event(deadly.body, None, "poison"))
    round_.expect_within(
        lambda: (round_.ready(letters) or 0) > bad, _POISON_SECONDS, "the event is set aside"
    )
    if round_.report.problems:
        round_.workers.modules = ()  # so that the round can end
        round_.workers.restart()
