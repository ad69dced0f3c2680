"""Kept for tools that call it; the metadata lives in setup.cfg."""

from setuptools import setup

setup()
