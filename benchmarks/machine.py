"""Where a measurement was made: the machine, and the versions of what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ

_PROJECT = Path(__file__).parents[1]
_PACKAGES = ("dramatiq", "pika", "peewee", "psycopg2-binary", "msgspec")


def machine() -> dict[str, Any]:
    """Processor, its number, memory in GB, kernel, and the load average of the last minute."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": platform.platform(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions(postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ) -> dict[str, str]:
    """The commit of the project, the servers, which must be running, Python, and packages."""
    with closing(postgres.connect()) as database, database.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (postgres_version,) = cursor.fetchone()
    with closing(rabbitmq.connect()) as connection:
        # pika's blocking connection has no public way to this.
        server = connection._impl.server_properties
    return {
        "flashsale": _commit(),
        "PostgreSQL": postgres_version,
        "RabbitMQ": server["version"],
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        check=False,  # an unpacked archive is no repository
    )
    return answer.stdout.strip() or version("flashsale")
