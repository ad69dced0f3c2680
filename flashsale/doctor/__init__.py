"""Examines what a worker needs: settings, servers, queues, tables, rights. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flashsale.doctor.broker import examine_broker
from flashsale.doctor.database import database_away, examine_database
from flashsale.doctor.finding import Finding, Level, fail
from flashsale.doctor.machine import examine_environment, examine_state_folder, examine_versions
from flashsale.errors import BrokerError, FlashsaleError, StoreError
from flashsale.reports import read_reports, running_workers
from flashsale.settings import Settings

__all__ = ["Examination", "Finding", "Level", "examine"]

#: Processes of the worker that README.md starts, where none runs here.
PROCESSES = 3


@dataclass(frozen=True)
class Examination:
    """All findings, in the order to read them; and what could not be examined, by its error."""

    findings: list[Finding]
    errors: list[FlashsaleError]


def examine(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    processes: int | None = None,
    management: tuple[str, int] | None = None,
) -> Examination:
    """Examine everything, the two servers side by side; each that is silent takes five seconds.

    Args:
        environment: what the settings were read from.
        processes: how many the worker has; by default, those that run here, or else 3.
        management: the address of RabbitMQ's management API; by default, its usual port.
    """
    count = processes or _running(settings) or PROCESSES
    here = [
        *examine_versions(),
        *examine_environment(settings, environment),
        *examine_state_folder(settings),
    ]
    with ThreadPoolExecutor(2, "doctor") as threads:
        broker = threads.submit(_collected, examine_broker(settings, management))
        database = threads.submit(_collected, examine_database(settings, count))
        results = [broker.result(), database.result()]
    findings = here + [finding for found, _ in results for finding in found]
    return Examination(findings, [error for _, error in results if error is not None])


def _running(settings: Settings) -> int:
    folders = running_workers(settings.state_folder)
    return sum(len(read_reports(folder)) for folder in folders)


def _collected(findings: Iterable[Finding]) -> tuple[list[Finding], FlashsaleError | None]:
    """What was found before an error ended the examination, and the error."""
    found: list[Finding] = []
    try:
        found.extend(findings)
    except BrokerError as error:
        says, _, remedy = str(error).partition("; ")
        return [*found, fail("rabbitmq", says, remedy)], error
    except StoreError as error:
        return [*found, database_away(error)], error
    return found, None
