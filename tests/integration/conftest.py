"""Databases for the tests of what is stored, and what the tests of commands act upon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flashsale.cli import cli, exits
from tests.conftest import QueueNames
from tests.support.letters import LetterBox
from tests.support.patients import Patient
from tests.support.shop import Shop
from tests.support.stores import Store, open_store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Store]:
    with open_store(postgres_url, migrated=True) as store:
        yield store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each test that asks for it runs on both databases."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_store")
    else:
        with open_store(f"sqlite:///{tmp_path}/flashsale.db") as on_sqlite:
            yield on_sqlite


@pytest.fixture
def box(rabbitmq_url: str, queue_names: QueueNames) -> LetterBox:
    return LetterBox(rabbitmq_url, queue_names)


@pytest.fixture
def run(
    box: LetterBox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command; gives its exit code, stdout and stderr."""
    for name, value in box.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLASHSALE_STATE_FOLDER", str(tmp_path / "state"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = exits.run(cli, ["dead-letters", *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def patient(
    postgres_url: str,
    rabbitmq_url: str,
    queue_names: QueueNames,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Patient:
    shop = Shop(postgres_url, rabbitmq_url, *queue_names)
    shop.publish([])
    with shop.channel() as channel:
        channel.exchange_declare(shop.dead_letter_queue, "fanout", durable=True)
    patient = Patient(shop, monkeypatch, capsys)
    patient.set(FLASHSALE_STATE_FOLDER=str(tmp_path / "state"))
    return patient
