"""Publishes in the background, and writes down what RabbitMQ has confirmed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.errors import BrokerError, PublishUnconfirmed
from flashsale.spreading import queue_for
from tests.torture.events import EventSource
from tests.torture.history import Event, History

_BURST = (20, 150)
_PAUSE_SECONDS = (0.1, 0.5)
_RETRY_SECONDS = 0.2
_CONFIRM_SECONDS = 3.0
_STOP_SECONDS = 60.0


class Load:
    """Bursts of events at random moments, from :meth:`start` to :meth:`stop`.

    What is not confirmed is published again until it is, as the API should do; it is on record as
    unknown as well, since the copies before may have arrived too.
    """

    def __init__(
        self, choice: random.Random, source: EventSource, broker_url: str, queues: Sequence[str]
    ) -> None:
        self.history = History()
        self._choice = choice
        self._source = source
        self._queues = queues
        self._publisher = ConfirmingPublisher(
            broker_url.split(";"), "torture load", _CONFIRM_SECONDS
        )
        self._publishing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the last burst is confirmed.

        Raises:
            TimeoutError: RabbitMQ did not confirm it.
        """
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError("the last events were not confirmed")
        self._publisher.close()
        if self._failure is not None:
            raise self._failure

    def publish(self, events: Sequence[Event]) -> None:
        """Publish these and return when all are confirmed. Thread-safe."""
        with self._publishing:
            self._publish(events, lambda: False)

    def publish_one(self) -> Event:
        """Publish a good event among the others; returns when it is confirmed. Thread-safe."""
        with self._publishing:
            event = self._source.good()
            self._publish([event], lambda: bool(time.sleep(_RETRY_SECONDS)))
        return event

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._publishing:
                    events = self._source.take(self._choice.randint(*_BURST))
                    self._publish(events, self._gives_up)
                self._stopping.wait(self._choice.uniform(*_PAUSE_SECONDS))
        except BaseException as failure:  # noqa: BLE001  # raised where it is seen, by stop()
            self._failure = failure

    def _gives_up(self) -> bool:
        # What stays unconfirmed when the round ends is of unknown fate, and accounted for so.
        return self._stopping.wait(_RETRY_SECONDS)

    def _publish(self, events: Sequence[Event], gives_up: Callable[[], bool]) -> None:
        while events:
            try:
                self._publisher.publish(
                    Outgoing(queue_for(event.body, self._queues), event.body) for event in events
                )
            except PublishUnconfirmed as error:
                confirmed = [event for at, event in enumerate(events) if error.is_confirmed(at)]
                self.history.unknown += [events[at] for at in sorted(error.unconfirmed)]
                self.history.confirmed += confirmed
                events = [event for at, event in enumerate(events) if not error.is_confirmed(at)]
            except BrokerError:
                pass  # nothing was sent
            else:
                self.history.confirmed += events
                return
            if gives_up():
                return
