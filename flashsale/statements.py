"""How statements on many rows are sent: their parameters, and what the driver says to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peewee

from flashsale.database import PostgresDatabase
from flashsale.errors import TransientFault, UnclassifiedFault

#: An expression that has its statement's commit wait for the synchronous standbys, where the server
#: has any, though the statement writes nothing: a commit waits until they have all up to itself. So
#: rows that are read with it are as safe as rows that were written now. Without it they need not
#: be: a commit that was interrupted while it waited is visible, and not replicated.
REPLICATED = (
    "(SELECT pg_logical_emit_message(true, 'flashsale', ''::text)"
    " WHERE current_setting('synchronous_standby_names') <> '')"
)


def execute(database: peewee.Database, sql: str, parameters: Sequence[object] = ()) -> Any:
    """The cursor of one statement, committed by itself; inside :func:`database.session`.

    On PostgreSQL the commit is also on the synchronous standbys, where there are any.

    Raises:
        TransientFault: whether it is on those is not known.
        UnclassifiedFault: the driver could not send a value. The text does not quote it.
    """
    try:
        cursor = database.execute_sql(sql, parameters)
    except (ValueError, TypeError) as error:
        raise UnclassifiedFault(f"the driver refused a value ({type(error).__name__})") from None
    if isinstance(database, PostgresDatabase) and database.warned():
        # A commit whose wait for the standby was cancelled succeeds, with a warning. Warnings have
        # no code to tell that one by, and may be translated; so whatever it was, wait now.
        database.execute_sql(f"SELECT {REPLICATED}")
        if database.warned():
            raise TransientFault("the wait for the synchronous standby was cancelled")
    return cursor


def lines(texts: Sequence[str]) -> str:
    """Texts as one parameter, for ``string_to_array(%s, E'\\n')`` to take apart.

    A list as parameter costs both sides several times as much: psycopg2 quotes each element, and
    the server parses, plans and evaluates an expression of as many constants. An array literal
    needs escapes where a text has quotes, as all JSON has, and those escapes need escapes.

    Raises:
        UnclassifiedFault: a text has a line feed, and would be taken for two.
    """
    joined = "\n".join(texts)
    if joined.count("\n") >= max(len(texts), 1):
        raise UnclassifiedFault("a value holds a line feed")
    return joined
