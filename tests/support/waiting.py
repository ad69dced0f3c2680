"""Waiting for another process or thread, always with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], T], timeout: float, what: str) -> T:
    """Return the first true answer of `condition`, asked again and again for `timeout` seconds.

    Raises:
        TimeoutError: saying that `what` did not happen. What `condition` raises passes through.
    """
    deadline = time.monotonic() + timeout
    while True:
        if answer := condition():
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: did not happen within {timeout:g} s")
        time.sleep(_POLL_SECONDS)
