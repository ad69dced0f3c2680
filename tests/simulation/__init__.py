"""A seeded simulation of several worker processes, RabbitMQ and the database, in one thread.

The batching code in it is the real one; the broker, the store and the clock are models. Each seed
is another story of deliveries, failures, cut channels and killed processes, the same in each run.
``python -m tests.simulation SEED`` tells one of them.
"""
