"""The end of a process that does not end by itself."""

from __future__ import annotations

import threading
from queue import Queue

from flashsale.watchdog import EXIT_ABANDONED, Backstop

SOON_SECONDS = 5.0


def test_a_shutdown_that_takes_too_long_is_cut_off_after_the_last_words() -> None:
    happened: Queue[object] = Queue()
    Backstop(0.01, lambda: happened.put("last words"), end=happened.put).start()

    assert happened.get(timeout=SOON_SECONDS) == "last words"
    assert happened.get(timeout=SOON_SECONDS) == EXIT_ABANDONED


def test_last_words_that_never_end_do_not_keep_the_process() -> None:
    ended: Queue[int] = Queue()
    released = threading.Event()
    Backstop(0.01, released.wait, end=ended.put).start()

    assert ended.get(timeout=SOON_SECONDS) == EXIT_ABANDONED
    released.set()


def test_a_shutdown_in_time_is_not_cut_off() -> None:
    ended: Queue[int] = Queue()
    backstop = Backstop(SOON_SECONDS, lambda: None, end=ended.put)
    before = set(threading.enumerate())
    backstop.start()
    backstop.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON_SECONDS)

    assert ended.empty()
