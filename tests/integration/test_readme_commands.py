"""What the README has a newcomer type against PostgreSQL works there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.postgres import PrivatePostgres

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_trial_sale_is_made_and_its_events_would_find_it(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    (sql,) = re.findall(r'psql \S+ -c "([^"]+)"', README)
    (published_for,) = re.findall(r"\$ flashsale publish --sale (\S+)", README)
    connection = postgres_server.connect(postgres_url.rpartition("/")[2])
    cursor = connection.cursor()

    cursor.execute(sql)

    cursor.execute("SELECT id::text, ends_at > now() FROM sales")
    assert cursor.fetchall() == [(published_for, True)]
    connection.close()
