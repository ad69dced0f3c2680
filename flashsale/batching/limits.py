"""What bounds a consumer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is on its way at once, and how long one wait for more may last."""

    batch_size: int = 1_000
    #: Most batches with the workers at once. While one is, the rest is collected until it is back
    #: or another is full: large batches are what makes the database and the broker cheap.
    in_flight: int = 2
    #: How long one may take before the next leaves though it is not full.
    collect_seconds: float = 0.025
    #: While a batch for each consumer is still in the queue, and deliveries come at this many a
    #: second or faster, a batch waits to be full.
    fill_pace: float = 2_000.0
    #: How often the queue is asked for that, at most.
    ask_seconds: float = 0.1
    #: Most open deliveries; the channel's prefetch.
    prefetch: int = 3_000
    #: Size of the one batch that ends an outage, or shows that it lasts.
    trial_size: int = 50
    idle_seconds: float = 1.0
