"""``flashsale demo`` on PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys

import psycopg2

from flashsale import exit_codes


def test_an_empty_postgres_is_migrated_and_every_event_accounted_for(
    empty_postgres_url: str,
) -> None:
    """And what it says of the rows it leaves is so: they are there, and its statement ends them."""
    arguments = ["--events", "3000", "--json", "--database", empty_postgres_url]
    done = subprocess.run(
        [sys.executable, "-m", "flashsale", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == exit_codes.OK, done.stderr
    summary = json.loads(done.stdout)
    assert summary["accounted_for"] is True
    connection = psycopg2.connect(empty_postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM orders")
        assert cursor.fetchone() == (summary["account"]["orders"]["found"],)
        cursor.execute(done.stderr.splitlines()[-1])
        cursor.execute("SELECT count(*) FROM orders")
        assert cursor.fetchone() == (0,)
    connection.close()
