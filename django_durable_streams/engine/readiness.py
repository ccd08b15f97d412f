"""Readiness of a database: it has the tables of the models, and they may be written to.

The check at a server's start finds forgotten migrations, missing rights and read-only connections before the first
request does.
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
"""How long a start waits for the check. The database may not answer, and a transaction may have locked a table."""


def check_setup(using: str, problem_reporter: ProblemReporter) -> None:
    """Log what an operator has to set right in a database. The monitor reports a database that does not answer."""
    connection = DedicatedConnection(using, lock_seconds=1)
    thread = Thread(target=_check, args=(connection, problem_reporter), name="durable-streams-setup", daemon=True)
    thread.start()
    thread.join(CHECK_SECONDS)
    connection.cut()


def _check(connection: DedicatedConnection, problem_reporter: ProblemReporter) -> None:
    try:
        with connection:  # forks wait for it
            connection.open()
            try_tables(connection.using, writes=True)
    except Error as error:
        if problem_reporter.report(error) is None:
            logger.debug("The database could not be checked: %s", error)
    finally:
        connection.close()


def try_tables(using: str, *, writes: bool = False) -> None:
    """Try the statements that streams need, on no row, over this thread's connection.

    Args:
        using: alias of the database.
        writes: whether to try writes too, which on SQLite takes the lock of all writers.

    Raises:
        django.db.Error: a statement failed because of a configuration problem.
    """
    with connections[using].cursor() as cursor:
        for statement in _statements(using, writes):
            try:
                cursor.execute(statement)
            except Error as error:
                if find_problem(error) is not None:
                    raise
                # Most likely another transaction holds a lock.
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
