"""What the worker asks of a Dramatiq broker, whatever brings its events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Never, Protocol

from dramatiq import Message
from dramatiq.broker import Broker, Consumer
from dramatiq.middleware import Middleware

from flashsale.batching import Transport
from flashsale.settings import Settings

NewConsumer = Callable[[Transport], Consumer]


class NewBroker(Protocol):
    """Makes a broker; each class of them does so itself."""

    def __call__(
        self, settings: Settings, *, new_consumer: NewConsumer, middleware: list[Middleware]
    ) -> WorkerBroker: ...


class WorkerBroker(Broker):
    """Hosts the worker's consumer: its `consume` opens a transport and hands it to `new_consumer`.

    To Dramatiq, which publishes nothing through it, the queues of the settings are one, whose name
    lists theirs. Another transport needs a class like this one, a
    :class:`~flashsale.batching.Transport` and its channel, and nothing else.
    """

    #: Whether the events that a process held when it died come to another.
    redelivers_beyond_the_process = True

    def __init__(
        self, settings: Settings, *, new_consumer: NewConsumer, middleware: list[Middleware]
    ) -> None:
        super().__init__(middleware=middleware)
        self._settings = settings
        self._new_consumer = new_consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Never:  # noqa: ARG002
        """Refuse: the queues hold purchase events, not Dramatiq's envelopes.

        Raises:
            TypeError: always, naming what to call instead.
        """
        raise TypeError("purchase events are published with flashsale.client.publish_purchase")

    @property
    def can_dead_letter(self) -> bool:
        """False once what writes dead letters has ended unasked. Thread-safe."""
        return True

    @property
    def failed_letter_attempts(self) -> int:
        """How often dead letters were not confirmed, since the start. Thread-safe."""
        return 0
