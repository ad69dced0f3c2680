"""Proof by torture: real workers and servers under every fault that one machine can make.

Each round starts workers, publishes events, breaks something at random moments, mends it, waits
for the queue to drain, and then accounts for every single event. ``python -m tests.torture --list``
names the faults; a seed repeats a round.
"""
