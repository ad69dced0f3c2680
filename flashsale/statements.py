"""How statements on many rows are sent: their parameters, and what the driver says to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peewee

from flashsale.errors import UnclassifiedFault


def execute(database: peewee.Database, sql: str, parameters: Sequence[object]) -> Any:
    """The cursor of one statement, which commits by itself; inside :func:`database.session`.

    Raises:
        UnclassifiedFault: the driver could not send a value. The text does not quote it.
    """
    try:
        return database.execute_sql(sql, parameters)
    except (ValueError, TypeError) as error:
        raise UnclassifiedFault(f"the driver refused a value ({type(error).__name__})") from None


def array_literal(texts: Sequence[str]) -> str:
    """PostgreSQL's text form of an array, for a parameter that the statement casts.

    A list as parameter costs both sides several times as much: psycopg2 quotes each element, and
    the server parses, plans and evaluates an expression of as many constants.
    """
    if not texts:
        return "{}"
    elements = '","'.join(texts)
    if "\\" in elements or elements.count('"') != 2 * (len(texts) - 1):
        elements = '","'.join(text.replace("\\", r"\\").replace('"', r"\"") for text in texts)
    return f'{{"{elements}"}}'
