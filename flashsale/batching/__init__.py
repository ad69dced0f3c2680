"""Batches of broker messages for Dramatiq actors, with one verdict for each message.

It promises, for any transport that keeps :class:`~flashsale.batching.transport.Transport`:

* a delivery is acknowledged only after its verdict was DONE, or after the broker has confirmed its
  dead letter, and only on the channel that it came from;
* a delivery that has not got a verdict is tried again, or given back; none is forgotten;
* no more than the prefetch is ever in memory;
* while nothing can succeed, nothing is taken from the queue.

It knows nothing of what the messages mean, of the broker's protocol, or of a database.
"""

from flashsale.batching.batch import DONE, Batch, Delivery, Failure, Rejection, Verdict
from flashsale.batching.batcher import Batcher
from flashsale.batching.breaker import Breaker, BreakerState
from flashsale.batching.consumer import BatchingConsumer
from flashsale.batching.intake import POISON_REASON, Intake, Suspicion
from flashsale.batching.ledger import Ledger
from flashsale.batching.limits import Limits
from flashsale.batching.reminders import Reminders
from flashsale.batching.retries import UNCLASSIFIED_REASON, HeldRetries
from flashsale.batching.tally import Tally
from flashsale.batching.transport import Channel, ChannelLost, Letter, Transport

__all__ = [
    "DONE",
    "POISON_REASON",
    "UNCLASSIFIED_REASON",
    "Batch",
    "Batcher",
    "BatchingConsumer",
    "Breaker",
    "BreakerState",
    "Channel",
    "ChannelLost",
    "Delivery",
    "Failure",
    "HeldRetries",
    "Intake",
    "Ledger",
    "Letter",
    "Limits",
    "Rejection",
    "Reminders",
    "Suspicion",
    "Tally",
    "Transport",
    "Verdict",
]
