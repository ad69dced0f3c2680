"""The decoder against any bytes: ``python -m tests.fuzz``, and a short form that pytest runs.

Every input becomes a purchase or is refused with a reason, as a second, plain reading of the rules
says; nothing else may happen.
"""
