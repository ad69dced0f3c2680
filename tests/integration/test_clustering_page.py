"""What docs/clustering.md tells to set is understood by what it is set on."""

from __future__ import annotations

import shlex

import pytest

from flashsale.settings import Settings
from tests.support.documents import blocks
from tests.support.postgres import PrivatePostgres

_PAGE = "docs/clustering.md"


def settings_of(heading: str) -> Settings:
    text, *_ = blocks(_PAGE, "sh", heading)
    return Settings.from_env(dict(word.split("=", 1) for word in shlex.split(text)))


def test_the_nodes_of_the_page_are_three_with_quorum_queues() -> None:
    settings = settings_of("## RabbitMQ: three nodes and quorum queues")
    assert settings.purchase_queue_type == "quorum"
    assert len(settings.broker_urls) == 3


def test_the_hosts_of_the_page_are_two() -> None:
    settings = settings_of("## PostgreSQL: a primary and a synchronous standby")
    assert [host["host"] for host in settings.database.hosts] == ["db1", "db2"]


@pytest.mark.postgres
def test_the_statements_of_the_page_are_postgresql() -> None:
    with PrivatePostgres() as server:
        for block in blocks(_PAGE, "sql", "## PostgreSQL: a primary and a synchronous standby"):
            for statement in filter(str.strip, block.split(";")):
                server.administer(statement)
