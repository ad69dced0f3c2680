"""Serves metrics and probes of one worker, all its processes together, from a process of its own.

It reads what the processes write (:mod:`flashsale.reports`) and asks RabbitMQ for the length of
the queues, so that neither a scrape nor a slow reader ever waits on, or for, a process that works.
"""
