"""A wrong environment is told as a whole, without a traceback, and ends the command."""

from __future__ import annotations

import pytest

from tests.support.workers import RunningWorker

pytestmark = pytest.mark.acceptance


def test_every_problem_is_named_and_the_exit_code_is_2() -> None:
    env = {
        "DATABASE_URL": "mysql://shop:hunter2@localhost/flashsale",
        "PURCHASE_QUEUE": "two words",
        "FLASHSALE_BATCH_SIZE": "many",
        "FLASHSALE_BATCHSIZE": "500",
    }
    with RunningWorker(env) as worker:
        assert worker.wait(10) == 2
        log = worker.log()

    assert "flashsale cannot start, its environment is wrong" in log
    for name in env:
        assert f"\n{name}: " in log
    assert "Traceback" not in log
    assert "hunter2" not in log
