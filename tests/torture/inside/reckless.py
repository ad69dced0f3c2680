"""A worker that acknowledges what it has received at once: the torture must find what it loses."""

from __future__ import annotations

from collections.abc import Sequence

from flashsale.batching import Delivery
from flashsale.brokers.rabbitmq import RabbitmqChannel

_receive, _ack = RabbitmqChannel.receive, RabbitmqChannel.ack


def _receive_and_ack(
    channel: RabbitmqChannel, seconds: float, limit: int, *, gather_seconds: float = 0.0
) -> Sequence[Delivery]:
    deliveries = _receive(channel, seconds, limit, gather_seconds=gather_seconds)
    if deliveries:
        _ack(channel, deliveries[-1].tag, multiple=True)
    return deliveries


def _do_nothing(_channel: RabbitmqChannel, *_args: object, **_options: object) -> None:
    """What would acknowledge or give back a second time."""


RabbitmqChannel.receive = _receive_and_ack  # type: ignore[method-assign,assignment]
RabbitmqChannel.ack = _do_nothing  # type: ignore[method-assign,assignment]
RabbitmqChannel.give_back = _do_nothing  # type: ignore[method-assign,assignment]
