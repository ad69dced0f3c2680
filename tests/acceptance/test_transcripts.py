"""The tour of the commands, typed again as a newcomer types it."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.transcripts import Session, steps

pytestmark = pytest.mark.acceptance

TOUR = Path(__file__).parents[2] / "docs" / "tour.md"
VOLATILE = {"3f9a0c22d1b4": "[0-9a-f]{12}", "5b1f02ac": "[0-9a-f]{8}", "9c01d7e4": "[0-9a-f]{8}"}


@pytest.fixture
def own_rabbitmq_url(rabbitmq_server: PrivateRabbitMQ) -> Iterator[str]:
    """A virtual host of the test's own, where queues may have the names that users see."""
    vhost = f"tour-{uuid.uuid4().hex}"
    rabbitmq_server.ctl("add_vhost", vhost)
    rabbitmq_server.ctl("set_permissions", "--vhost", vhost, "guest", ".*", ".*", ".*")
    yield rabbitmq_server.url(vhost)
    rabbitmq_server.ctl("delete_vhost", vhost)


def test_every_command_of_the_tour_prints_what_the_page_shows(
    empty_postgres_url: str, own_rabbitmq_url: str, tmp_path: Path
) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "LANG": "C.UTF-8",
        "COLUMNS": "100",
        "DATABASE_URL": empty_postgres_url,
        "RABBITMQ_URL": own_rabbitmq_url,
        "FLASHSALE_STATE_FOLDER": str(tmp_path / "state"),
        "FLASHSALE_METRICS_PORT": "0",
        "FLASHSALE_REPLAY_SETTLE_SECONDS": "0.5",
    }
    with Session(tmp_path, env, VOLATILE) as session:
        for step in steps(TOUR):
            session.replay(step)
