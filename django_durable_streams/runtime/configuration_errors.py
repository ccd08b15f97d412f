"""Configuration problems: errors of a database that answers, which last until an operator acts.

Their exceptions have the same classes as those of failures. Each problem has two texts: a sentence for clients, without
details of the server, and the remedy for the log. Knows no stream.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from django.apps import apps
from django.db import DataError, Error, IntegrityError

from ..protocol.errors import ServiceUnavailable
from .log_once import LogOnce

logger = logging.getLogger(__name__)

_PACKAGE = __package__.partition(".")[0]

LOG_AGAIN_SECONDS = 60.0
"""A problem is logged again only if it did not occur for so long."""


class ConfigurationProblem(NamedTuple):
    """A problem, and how databases report it.

    Attributes:
        message: the problem, for clients.
        remedy: what the operator can do, for the log.
        states: SQLSTATEs of PostgreSQL.
        numbers: error numbers of MySQL and MariaDB.
        codes: primary result codes of SQLite.
        words: a regular expression for errors without a number, such as PostgreSQL's refusals to connect.
    """

    message: str
    remedy: str
    states: frozenset[str] = frozenset()
    numbers: frozenset[int] = frozenset()
    codes: frozenset[int] = frozenset()
    words: str = ""


MIGRATIONS = ConfigurationProblem(
    "The tables of this server are missing or not up to date: run manage.py migrate.",
    "Migrate the database to which the router sends writes of streams: manage.py migrate --database ALIAS.",
    states=frozenset({"42P01", "42703", "3F000"}),
    numbers=frozenset({1146, 1054}),
    words=r"no such (table|column)|has no column named",
)
PROJECT_MIGRATIONS = ConfigurationProblem(
    "A table of the project is missing or not up to date: run manage.py migrate.",
    "It is a table of the project or of Django, and not one of streams: the database names it. A permission class or a "
    "session needs it. Run manage.py makemigrations, if the model was changed, and manage.py migrate.",
)
"""`find_problem` tells it from `MIGRATIONS` by the table that the database names."""

READ_ONLY = ConfigurationProblem(
    "The database takes no changes at the moment.",
    "The connection is read-only: a standby, a session or server in read-only mode, or a SQLite file or folder that "
    "this process may not write. Send writes of streams to the primary, or make the database writable.",
    states=frozenset({"25006"}),
    numbers=frozenset({1290, 1792, 1836, 3989}),
    codes=frozenset({sqlite3.SQLITE_READONLY}),
)
DENIED = ConfigurationProblem(
    "The server may not use its database.",
    "Grant the database's user SELECT, INSERT, UPDATE and DELETE on the tables of streams and their sequences.",
    states=frozenset({"42501"}),
    numbers=frozenset({1044, 1142, 1143, 1227, 1370}),
    codes=frozenset({sqlite3.SQLITE_AUTH}),
)
LOGIN = ConfigurationProblem(
    "The database refuses the login of the server.",
    "Check USER, PASSWORD and OPTIONS in DATABASES, and the database's rules for logins from this machine.",
    states=frozenset({"28P01", "28000"}),
    numbers=frozenset({1045, 1698, 1251, 2059}),
    words=r"password authentication failed|no password supplied|no pg_hba\.conf entry|role \".*\" does not exist"
    r"|authentication failed|certificate",
)
NO_DATABASE = ConfigurationProblem(
    "The server's database does not exist.",
    "Check NAME in DATABASES, or create the database.",
    states=frozenset({"3D000"}),
    numbers=frozenset({1049}),
    words=r"database \".*\" does not exist",
)
NO_HOST = ConfigurationProblem(
    "The database cannot be found.",
    "Check HOST in DATABASES: this machine cannot resolve the name.",
    numbers=frozenset({2005}),
    words=r"could not translate host name|name or service not known|name resolution|nodename nor servname",
)
DISK_FULL = ConfigurationProblem(
    "The database has no room left.",
    "Free space on the disks with the files of the database, temporary files included.",
    states=frozenset({"53100"}),
    numbers=frozenset({1021, 1114}),
    codes=frozenset({sqlite3.SQLITE_FULL}),
)
NO_CONNECTION = ConfigurationProblem(
    "The database has no free connection.",
    "Let it, its pooler or the role of the server have more connections, or run fewer processes. Threads that have a "
    "connection go on.",
    states=frozenset({"53300"}),
    numbers=frozenset({1040, 1203, 1226}),
    words=r"too many (clients|connections)|connection slots are reserved|no more connections allowed"
    r"|client connections exceeded|max client",
)
NO_FILE = ConfigurationProblem(
    "The database cannot be opened.",
    "Check NAME in DATABASES. The folder of the SQLite file must exist, and this process must be allowed to write to "
    "it: SQLite creates files beside the database.",
    codes=frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}),
)
NO_DATABASE_FILE = ConfigurationProblem(
    "The database cannot be read.",
    "The file at NAME in DATABASES is damaged, encrypted, or not a SQLite database. Was it copied over another one? "
    "The -wal file beside it is of the other one then: remove -wal and -shm, and copy it again.",
    codes=frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}),
)

PROBLEMS = (
    MIGRATIONS,
    PROJECT_MIGRATIONS,
    READ_ONLY,
    DENIED,
    LOGIN,
    NO_DATABASE,
    NO_HOST,
    DISK_FULL,
    NO_CONNECTION,
    NO_FILE,
    NO_DATABASE_FILE,
)


def find_problem(error: BaseException | None) -> ConfigurationProblem | None:
    """Return the configuration problem that an error of the database reports, or None."""
    problem = _find(error)
    return PROJECT_MIGRATIONS if problem is MIGRATIONS and _names_project_table(error) else problem


def _names_project_table(error: BaseException | None) -> bool:
    """Return whether an error names a table, or a column with its table, of an app outside of this package."""
    words = set(re.findall(r"\w+", str(error).partition("\n")[0]))  # PostgreSQL shows the query below
    models = apps.get_models(include_auto_created=True) if apps.models_ready else []
    tables = {model._meta.db_table: model._meta.app_config for model in models}
    named = [app for table, app in tables.items() if table in words]
    return bool(named) and not any(app.name.startswith(_PACKAGE) for app in named)


def _find(error: BaseException | None) -> ConfigurationProblem | None:
    if not isinstance(error, Error) or isinstance(error, DataError | IntegrityError):
        return None
    cause = error.__cause__
    code = getattr(cause, "sqlite_errorcode", None)
    state = getattr(cause, "sqlstate", None)
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    for problem in PROBLEMS:
        if state in problem.states or number in problem.numbers:
            return problem
        if code is not None and code & 0xFF in problem.codes:
            return problem
    if state is not None or number is not None:
        return None  # the number is decisive
    return next((problem for problem in PROBLEMS if problem.words and re.search(problem.words, str(error), re.I)), None)


class ProblemReporter:
    """Turns configuration problems into errors for clients, and logs each problem once, not for each request.

    Args:
        using: alias of the database.
        on_read_only: is called for each error that reports a connection which takes no changes.
    """

    def __init__(self, using: str, on_read_only: Callable[[], None] | None = None) -> None:
        self._using = using
        self._on_read_only = on_read_only
        self._messages = LogOnce(LOG_AGAIN_SECONDS, extends=True)

    def report(self, error: BaseException | None) -> ServiceUnavailable | None:
        """Log a configuration problem, and return the error for clients. None: the error is of another kind."""
        problem = find_problem(error)
        if problem is None:
            return None
        if problem is READ_ONLY and self._on_read_only is not None:
            self._on_read_only()
        if self._messages.is_due(problem):
            logger.error(
                "The database cannot be used. %s %s (%s: %s)", problem.message, problem.remedy, self._using, error,
                extra={"database": self._using, "problem": problem.message},
            )  # fmt: skip
        return ServiceUnavailable(f"{problem.message} The server's log says what to do.")
