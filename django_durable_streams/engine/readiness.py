"""Whether a database is ready for streams: its tables are there as the models have them, and may be written to.

Migrations that were forgotten, a user without rights and a connection that may only read are found when a server
starts, and not by the first request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Thread

from django.apps import apps
from django.db import Error, connections

from ..models import Stream
from ..runtime.configuration_errors import ProblemReporter, find_problem
from ..runtime.connection import DedicatedConnection

logger = logging.getLogger(__name__)


CHECK_SECONDS = 3.0
"""How long a start waits for it: the database may not answer, and somebody may hold a table."""


def check_setup(using: str, problem_reporter: ProblemReporter) -> None:
    """Log what has to be set right in a database. One that does not answer is left to those who watch it."""
    connection = DedicatedConnection(using, lock_seconds=1)
    thread = Thread(target=_check, args=(connection, problem_reporter), name="durable-streams-setup", daemon=True)
    thread.start()
    thread.join(CHECK_SECONDS)
    connection.cut()


def _check(connection: DedicatedConnection, problem_reporter: ProblemReporter) -> None:
    try:
        connection.open()
        try_tables(connection.using, writes=True)
    except Error as error:
        if problem_reporter.refusal(error) is None:
            logger.debug("The database cannot be looked at: %s", error)
    finally:
        connection.close()


def try_tables(using: str, *, writes: bool = False) -> None:
    """Do what is done with the tables, to no row, over this thread's connection.

    Args:
        writes: whether to change them too, which on SQLite takes the lock of all who write.

    Raises:
        django.db.Error: what cannot be done, where that is for the configuration to set right.
    """
    with connections[using].cursor() as cursor:
        for statement in _statements(using, writes):
            try:
                cursor.execute(statement)
            except Error as error:
                if find_problem(error) is not None:
                    raise
                # Somebody holds a lock, most likely.
                logger.debug("%s: %s", statement, error)


def _statements(using: str, writes: bool) -> Iterator[str]:
    quote = connections[using].ops.quote_name
    for model in apps.get_app_config(Stream._meta.app_label).get_models():
        columns = [quote(str(field.column)) for field in model._meta.concrete_fields]
        table, names, last = quote(model._meta.db_table), ", ".join(columns), columns[-1]
        yield f"SELECT {names} FROM {table} WHERE 1 = 0"
        if writes:
            yield f"INSERT INTO {table} ({names}) SELECT {names} FROM {table} WHERE 1 = 0"
            yield f"UPDATE {table} SET {last} = {last} WHERE 1 = 0"
            yield f"DELETE FROM {table} WHERE 1 = 0"
