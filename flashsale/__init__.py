"""flashsale turns a flash sale's purchase events into confirmed orders.

The worker is ``dramatiq flashsale.actors``; everything else is the ``flashsale`` command.
Python callers publish events with :func:`flashsale.client.publish_purchase`.
"""

__version__ = "0.1.0"
