"""Measurements of speed, each a command with private servers of its own; see its --help.

They are not tests: what they print depends on the machine and on what else runs on it.
"""
