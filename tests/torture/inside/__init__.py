"""Modules that run inside the worker processes of a round; each is loaded by its bare name."""
