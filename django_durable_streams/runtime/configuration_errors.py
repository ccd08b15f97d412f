"""What has to be set right where a database answers and does not do its part: errors of configuration.

They come as the same exceptions as a failure does, and do not pass by themselves. Each has words of its own: a sentence
for clients, which tells them nothing of the server, and for the log what to do. Knows nothing of streams.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from typing import NamedTuple

from django.db import DataError, Error, IntegrityError

from ..protocol.errors import ServiceUnavailable
from .log_once import LogOnce

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 60.0
"""What was said is said again only where it has not happened for so long."""


class ConfigurationProblem(NamedTuple):
    """What is wrong, and how a database says it: by SQLSTATE (PostgreSQL), number (MySQL and MariaDB), primary result
    code (SQLite), or words where there is no number, as when PostgreSQL refuses to connect."""

    answer: str
    action: str
    states: frozenset[str] = frozenset()
    numbers: frozenset[int] = frozenset()
    codes: frozenset[int] = frozenset()
    words: str = ""


MIGRATIONS = ConfigurationProblem(
    "The tables of this server are not there, or not up to date: run manage.py migrate.",
    "The database is the one to which the router has streams written, and migrate takes it as --database.",
    states=frozenset({"42P01", "42703", "3F000"}),
    numbers=frozenset({1146, 1054}),
    words=r"no such (table|column)|has no column named",
)
READ_ONLY = ConfigurationProblem(
    "The database takes no changes at the moment.",
    "The connection may only read: a standby, a session or server that is set to read only, or a SQLite file or folder "
    "that this process may not write to. Have streams written to the primary, or make it writable.",
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
    "The database does not let the server in.",
    "Look at USER, PASSWORD and OPTIONS in DATABASES, and at whom the database lets in from this machine.",
    states=frozenset({"28P01", "28000"}),
    numbers=frozenset({1045, 1698, 1251, 2059}),
    words=r"password authentication failed|no password supplied|no pg_hba\.conf entry|role \".*\" does not exist"
    r"|authentication failed|certificate",
)
NO_DATABASE = ConfigurationProblem(
    "The server's database does not exist.",
    "Look at NAME in DATABASES, or create the database.",
    states=frozenset({"3D000"}),
    numbers=frozenset({1049}),
    words=r"database \".*\" does not exist",
)
NO_HOST = ConfigurationProblem(
    "The database cannot be found.",
    "Look at HOST in DATABASES: its name means nothing to this machine.",
    numbers=frozenset({2005}),
    words=r"could not translate host name|name or service not known|name resolution|nodename nor servname",
)
DISK_FULL = ConfigurationProblem(
    "The database has no room left.",
    "Make room where the database has its files, temporary ones too.",
    states=frozenset({"53100"}),
    numbers=frozenset({1021, 1114}),
    codes=frozenset({sqlite3.SQLITE_FULL}),
)
NO_FILE = ConfigurationProblem(
    "The database cannot be opened.",
    "Look at NAME in DATABASES. SQLite's folder has to be there, and this process has to be allowed to write to it: "
    "beside the database lie files of its own.",
    codes=frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}),
)
NO_DATABASE_FILE = ConfigurationProblem(
    "The database cannot be read.",
    "The file that NAME in DATABASES says is damaged, encrypted, or no SQLite database.",
    codes=frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}),
)

EVERY = (
    MIGRATIONS,
    READ_ONLY,
    DENIED,
    LOGIN,
    NO_DATABASE,
    NO_HOST,
    DISK_FULL,
    NO_FILE,
    NO_DATABASE_FILE,
)


def find_problem(error: BaseException | None) -> ConfigurationProblem | None:
    """Return what has to be set right for an error of the database; None where it is none of the configuration's."""
    if not isinstance(error, Error) or isinstance(error, DataError | IntegrityError):
        return None
    cause = error.__cause__
    code = getattr(cause, "sqlite_errorcode", None)
    state = getattr(cause, "sqlstate", None)
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    for advice in EVERY:
        if state in advice.states or number in advice.numbers:
            return advice
        if code is not None and code & 0xFF in advice.codes:
            return advice
    if state is not None or number is not None:
        return None  # it has said what it is
    return next((advice for advice in EVERY if advice.words and re.search(advice.words, str(error), re.I)), None)


class ProblemReporter:
    """Answers those who met an error of configuration, and says it in the log: once, and not for each of them.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._messages = LogOnce(SILENCE_SECONDS, extends=True)

    def refusal(self, error: BaseException | None) -> ServiceUnavailable | None:
        """Return what to answer to somebody who met an error; None where nothing has to be set right."""
        advice = find_problem(error)
        if advice is None:
            return None
        if self._messages.is_due(advice):
            logger.error(
                "The database cannot be used. %s %s (%s: %s)", advice.answer, advice.action, self._using, error
            )
        return ServiceUnavailable(f"{advice.answer} The server's log says what to do.")
