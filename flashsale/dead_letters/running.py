"""Runs over a plan, replay or discard, each with its one line in the journal and in the log."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flashsale.brokers.publishing import ConfirmingPublisher
from flashsale.dead_letters.editing import Edit
from flashsale.dead_letters.holding import HeldQueue
from flashsale.dead_letters.records import Plan, Records
from flashsale.dead_letters.replaying import Caps, Letters, Replay, RunOutcome, window_for
from flashsale.settings import Settings

log = logging.getLogger(__name__)

_DISCARD_CHUNK = 1_000


def caps_of(settings: Settings) -> Caps:
    """The caps that the environment sets."""
    return Caps(
        settings.replay_rate, settings.replay_max_failed_share, settings.replay_settle_seconds
    )


def replay(
    queue: HeldQueue,
    records: Records,
    plan: Plan,
    settings: Settings,
    *,
    outcome: RunOutcome,
    caps: Caps,
    edit: Edit,
    progress: Callable[[int], None],
    on_stage: Callable[[int, int], None],
    on_wait: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Replay a plan into the purchase queues; `outcome` tells at any time how far it is.

    Raises:
        BrokerError: RabbitMQ failed; what was not confirmed is in the dead letters still.
        RecordsUnusable: replays cannot be counted, or the run cannot be noted.
    """
    publisher = ConfirmingPublisher(settings.broker_urls, "flashsale replay")
    with _noted(records, plan, outcome, edit=edit.described), publisher:
        Replay(
            queue=queue,
            publisher=publisher,
            records=records,
            plan=plan,
            caps=caps,
            targets=settings.purchase_queues,
            edit=edit,
            outcome=outcome,
            max_event_bytes=settings.max_event_bytes,
            window=window_for(plan.largest_bytes, caps.rate),
            progress=progress,
            on_stage=on_stage,
            on_wait=on_wait,
            stop=stop,
        ).run()


def discard(
    queue: HeldQueue,
    records: Records,
    plan: Plan,
    settings: Settings,
    *,
    outcome: RunOutcome,
    progress: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Take the letters of a plan out of their queue for good.

    Raises:
        BrokerError: RabbitMQ failed; what was not discarded is in the dead letters still.
    """
    letters = Letters(
        queue,
        Counter(plan.letters),
        window=window_for(plan.largest_bytes, _DISCARD_CHUNK),
        max_event_bytes=settings.max_event_bytes,
    )
    with _noted(records, plan, outcome):
        while not stop.is_set() and (chunk := letters.next(_DISCARD_CHUNK)):
            letters.done(chunk)
            outcome.done += len(chunk)
            progress(outcome.done)
        letters.give_back()
        if stop.is_set():
            outcome.stopped = "interrupted"
        else:
            outcome.missing = letters.wanted.total()


@contextmanager
def _noted(records: Records, plan: Plan, outcome: RunOutcome, **about: str) -> Iterator[None]:
    failure: str | None = None
    records.begin(plan)
    try:
        yield
    except BaseException as error:
        failure = type(error).__name__
        raise
    finally:
        line = records.log_run(
            what=plan.what,
            plan=plan.name,
            queue=plan.queue,
            **about,
            **outcome.record(),
            failure=failure,
        )
        log.info("dead_letters.run_ended", extra=line)
