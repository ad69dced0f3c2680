"""Dead letters for the people on call: what they are, how they are looked at, and replayed.

RabbitMQ shows the messages of a queue only to those who take them. So every look takes letters
unacknowledged and gives them back, each to its own place; a process that is killed meanwhile gives
them back as well. Only a confirmed replay, or a discard, is acknowledged.
"""
