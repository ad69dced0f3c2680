"""Counts of what became of every delivery, so that conservation can be checked and not hoped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What a consumer has done since its process started. Written by the consumer's thread.

    ``delivered = settled + dead_lettered + returned + open`` holds between any two steps.
    """

    delivered: int = 0
    #: Those of them that the broker had delivered before, where their deaths are counted.
    redelivered: int = 0
    #: Those of them that a restart of the broker would have lost.
    not_persistent: int = 0
    #: Acknowledged, or about to be, after their work was durable.
    settled: int = 0
    #: Those of them that were done before already.
    repeats: int = 0
    #: Settled after their dead letter was confirmed.
    dead_lettered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    #: Given back to the queue, by us or by the loss of a channel.
    returned: int = 0
    #: Delivered and none of the above yet.
    open: int = 0
    #: Verdicts that came too late: their channel was gone, and so the delivery is out again.
    stale: int = 0
    batches: int = 0
    held: int = 0
    channels: int = 0
    #: Attempts at a channel that failed.
    failed_channels: int = 0
    #: Frames that acknowledged, each of them one delivery or many.
    acknowledgements: int = 0

    @property
    def is_conserved(self) -> bool:
        return self.delivered == self.settled + self.dead_lettered + self.returned + self.open
