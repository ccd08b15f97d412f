"""Errors of configuration that look like failures have words of their own, once in the log, and an answer of 503."""

import gc
import logging
import sqlite3
import traceback
import weakref
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import (
    DataError,
    Error,
    IntegrityError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime import configuration_errors, execution, log_once
from django_durable_streams.runtime.configuration_errors import ConfigurationProblem, ProblemReporter, find_problem
from django_durable_streams.runtime.database_errors import FailureKind, diagnose
from django_durable_streams.runtime.monitor import DatabaseMonitor


def postgresql(state: str | None, words: str = "", kind: type[Error] = OperationalError) -> Error:
    """An error as psycopg makes it: one that comes while connecting has no SQLSTATE."""
    error = kind(words)
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": state})()
    return error


def mysql(number: int, words: str = "") -> Error:
    """An error as mysqlclient makes it."""
    error = OperationalError(number, words)
    error.__cause__ = Exception(number, words)
    return error


def sqlite(code: int, words: str = "") -> Error:
    """An error as sqlite3 makes it."""
    error = OperationalError(words)
    error.__cause__ = type("Cause", (Exception,), {"sqlite_errorcode": code})()
    return error


READ_ONLY_FOLDER = sqlite3.SQLITE_READONLY | 6 << 8

FULL = (
    "sorry, too many clients already",
    'too many connections for role "streams"',
    'too many connections for database "streams"',
    "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    "remaining connection slots are reserved for non-replication superuser connections",
    "no more connections allowed (max_client_conn)",
    "client connections exceeded (max_user_client_connections)",
    "Max client connections reached",
)
"""How PostgreSQL and its poolers refuse a connection for which they have no room."""

CONFIGURATION = [
    (
        postgresql("42P01", 'relation "durable_streams_stream" does not exist', ProgrammingError),
        configuration_errors.MIGRATIONS,
    ),
    (postgresql("42703", "column does not exist", ProgrammingError), configuration_errors.MIGRATIONS),
    (mysql(1146, "Table 'x' doesn't exist"), configuration_errors.MIGRATIONS),
    (mysql(1054, "Unknown column"), configuration_errors.MIGRATIONS),
    (sqlite(sqlite3.SQLITE_ERROR, "no such table: durable_streams_stream"), configuration_errors.MIGRATIONS),
    (sqlite(sqlite3.SQLITE_ERROR, "no such column: deadline"), configuration_errors.MIGRATIONS),
    (
        sqlite(sqlite3.SQLITE_ERROR, "table durable_streams_stream has no column named x"),
        configuration_errors.MIGRATIONS,
    ),
    (
        postgresql("42P01", 'relation "auth_user" does not exist\nLINE 1: durable_streams_stream', ProgrammingError),
        configuration_errors.PROJECT_MIGRATIONS,
    ),
    (
        postgresql("42703", "column auth_user.team does not exist\nLINE 1: SELECT", ProgrammingError),
        configuration_errors.PROJECT_MIGRATIONS,
    ),
    (
        postgresql("42703", "column x does not exist\nLINE 1: SELECT auth_user.x", ProgrammingError),
        configuration_errors.MIGRATIONS,
    ),
    (mysql(1146, "Table 'mysite.django_session' doesn't exist"), configuration_errors.PROJECT_MIGRATIONS),
    (mysql(1054, "Unknown column 'auth_group.team' in 'field list'"), configuration_errors.PROJECT_MIGRATIONS),
    (sqlite(sqlite3.SQLITE_ERROR, "no such table: auth_user_groups"), configuration_errors.PROJECT_MIGRATIONS),
    (sqlite(sqlite3.SQLITE_ERROR, "no such column: auth_user.team"), configuration_errors.PROJECT_MIGRATIONS),
    (
        sqlite(sqlite3.SQLITE_ERROR, "no such column: durable_streams_stream.auth_user"),
        configuration_errors.MIGRATIONS,
    ),
    (postgresql("42501", "permission denied for table", ProgrammingError), configuration_errors.DENIED),
    (mysql(1142, "INSERT command denied to user"), configuration_errors.DENIED),
    (mysql(1044, "Access denied for user to database"), configuration_errors.DENIED),
    (
        postgresql("25006", "cannot execute INSERT in a read-only transaction", InternalError),
        configuration_errors.READ_ONLY,
    ),
    (mysql(1290, "running with the --read-only option"), configuration_errors.READ_ONLY),
    (mysql(1792, "Cannot execute statement in a READ ONLY transaction"), configuration_errors.READ_ONLY),
    (sqlite(sqlite3.SQLITE_READONLY, "attempt to write a readonly database"), configuration_errors.READ_ONLY),
    (sqlite(READ_ONLY_FOLDER, "attempt to write a readonly database"), configuration_errors.READ_ONLY),
    (postgresql("28P01", "password authentication failed"), configuration_errors.LOGIN),
    (postgresql(None, 'FATAL:  password authentication failed for user "x"'), configuration_errors.LOGIN),
    (postgresql(None, "fe_sendauth: no password supplied"), configuration_errors.LOGIN),
    (postgresql(None, 'FATAL:  role "x" does not exist'), configuration_errors.LOGIN),
    (postgresql(None, 'FATAL:  no pg_hba.conf entry for host "10.0.0.1"'), configuration_errors.LOGIN),
    (mysql(1045, "Access denied for user 'x'@'localhost' (using password: YES)"), configuration_errors.LOGIN),
    (postgresql("3D000", 'database "x" does not exist'), configuration_errors.NO_DATABASE),
    (postgresql(None, 'FATAL:  database "x" does not exist'), configuration_errors.NO_DATABASE),
    (mysql(1049, "Unknown database 'x'"), configuration_errors.NO_DATABASE),
    (
        postgresql(None, 'could not translate host name "db.internal" to address: Name or service not known'),
        configuration_errors.NO_HOST,
    ),
    (mysql(2005, "Unknown MySQL server host 'db.internal'"), configuration_errors.NO_HOST),
    (postgresql("53100", "could not extend file: No space left on device"), configuration_errors.DISK_FULL),
    (mysql(1021, "Disk full"), configuration_errors.DISK_FULL),
    (mysql(1114, "The table is full"), configuration_errors.DISK_FULL),
    (sqlite(sqlite3.SQLITE_FULL, "database or disk is full"), configuration_errors.DISK_FULL),
    (postgresql("53300", "too many connections"), configuration_errors.NO_CONNECTION),
    *((postgresql(None, f"connection failed: FATAL:  {words}"), configuration_errors.NO_CONNECTION) for words in FULL),
    (mysql(1040, "Too many connections"), configuration_errors.NO_CONNECTION),
    (mysql(1203, "User x already has more than 'max_user_connections' active"), configuration_errors.NO_CONNECTION),
    (mysql(1226, "User 'x' has exceeded the 'max_user_connections' resource"), configuration_errors.NO_CONNECTION),
    (sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file"), configuration_errors.NO_FILE),
    (sqlite(sqlite3.SQLITE_NOTADB, "file is not a database"), configuration_errors.NO_DATABASE_FILE),
    (sqlite(sqlite3.SQLITE_CORRUPT, "database disk image is malformed"), configuration_errors.NO_DATABASE_FILE),
]
OTHERS = [
    (postgresql(None, "connection refused"), FailureKind.AWAY),
    (postgresql(None, "server closed the connection unexpectedly"), FailureKind.AWAY),
    (postgresql("57P03", "the database system is starting up"), FailureKind.AWAY),
    (postgresql("57014", "canceling statement due to statement timeout"), FailureKind.AWAY),
    (postgresql("0A000", "cannot do this", NotSupportedError), FailureKind.AWAY),
    (mysql(2006, "Server has gone away"), FailureKind.AWAY),
    (sqlite(sqlite3.SQLITE_IOERR, "disk I/O error"), FailureKind.AWAY),
    (postgresql("55P03", "canceling statement due to lock timeout"), FailureKind.BUSY),
    (postgresql("40001", "could not serialize access"), FailureKind.BUSY),
    (mysql(1205, "Lock wait timeout exceeded"), FailureKind.BUSY),
    (sqlite(sqlite3.SQLITE_BUSY, "database is locked"), FailureKind.BUSY),
    (IntegrityError("UNIQUE constraint failed"), FailureKind.REFUSED),
    (DataError("value too long: no such table"), FailureKind.REFUSED),
    (ValueError("embedded null byte"), FailureKind.REFUSED),
]


def named(part: object) -> str:
    """Return a name for a test that is the same in every process: the order of a set is not."""
    return part.message if isinstance(part, ConfigurationProblem) else str(part)


@pytest.mark.parametrize(("error", "expected"), CONFIGURATION, ids=named)
def test_each_has_its_advice(error: Error, expected: ConfigurationProblem) -> None:
    assert find_problem(error) is expected
    assert diagnose(error) is FailureKind.SETUP


@pytest.mark.parametrize(("error", "expected"), OTHERS, ids=str)
def test_failures_have_none(error: Exception, expected: FailureKind) -> None:
    assert find_problem(error) is None
    assert diagnose(error) is expected


@pytest.mark.parametrize(("error", "expected"), CONFIGURATION, ids=named)
def test_it_is_said_once(error: Error, expected: ConfigurationProblem, caplog: pytest.LogCaptureFixture) -> None:
    problem_reporter = ProblemReporter("default")
    refusals = [problem_reporter.report(error) for _ in range(5)]
    assert all(refusal is not None and refusal.status == 503 for refusal in refusals)
    assert all(expected.message in str(refusal) for refusal in refusals)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert expected.remedy in record.getMessage()
    assert str(error) in record.getMessage()


def test_it_is_said_again_when_it_comes_back(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    problem_reporter = ProblemReporter("default")
    now = 0.0
    monkeypatch.setattr(log_once, "time", SimpleNamespace(monotonic=lambda: now))
    problem_reporter.report(mysql(1146))
    now = configuration_errors.LOG_AGAIN_SECONDS
    problem_reporter.report(mysql(1146))
    problem_reporter.report(mysql(1045))
    assert len(caplog.records) == 2
    now = 3 * configuration_errors.LOG_AGAIN_SECONDS
    problem_reporter.report(mysql(1146))
    assert len(caplog.records) == 3


def test_every_advice_says_something_else() -> None:
    texts: list[Any] = [(problem.message, problem.remedy) for problem in configuration_errors.PROBLEMS]
    assert len(set(texts)) == len(texts)
    assert all(answer.endswith(".") and action.endswith(".") for answer, action in texts)


def test_who_is_refused_keeps_nothing_of_others_who_were(caplog: pytest.LogCaptureFixture) -> None:
    with execution.inline():  # without a thread, which would find out that the database answers
        monitor = DatabaseMonitor("default")

    class Request:
        """What a refused request holds."""

    def refused(request: Request) -> int:
        try:
            raise monitor.refusal()
        except ServiceUnavailable as error:
            return len(traceback.extract_tb(error.__traceback__))

    try:
        for error in (None, full(), None):
            if error is not None:
                monitor.suspect(error)
            requests = [Request() for _ in range(5)]
            left = [weakref.ref(request) for request in requests]
            assert {refused(request) for request in requests} == {1}
            del requests
            gc.collect()
            assert [one() for one in left] == [None] * 5
        assert "no room left" in str(monitor.refusal())
    finally:
        monitor.stop()


def full() -> OperationalError:
    """What Django makes of SQLite's error for a full disk."""
    cause = sqlite3.OperationalError("database or disk is full")
    cause.sqlite_errorcode = sqlite3.SQLITE_FULL
    error = OperationalError("database or disk is full")
    error.__cause__ = cause
    return error


def test_a_file_with_the_wal_of_another_one_has_its_advice(tmp_path: Path) -> None:
    """A backup that was copied over a database whose process was killed."""
    path, backup = tmp_path / "db.sqlite3", tmp_path / "backup.sqlite3"
    insert, rows = "INSERT INTO a VALUES (?)", [("x" * 3000,)] * 100
    with closing(sqlite3.connect(path)) as killed:
        killed.executescript("PRAGMA journal_mode = WAL; CREATE TABLE a (x);")
        killed.executemany(insert, rows)
        killed.commit()
        killed.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        killed.execute("UPDATE a SET x = replace(x, 'x', 'y')")
        killed.commit()
        wal = Path(f"{path}-wal").read_bytes()
    with closing(sqlite3.connect(backup)) as earlier:
        earlier.executescript("PRAGMA journal_mode = WAL; CREATE TABLE a (x); CREATE INDEX i ON a (x);")
        earlier.executemany(insert, rows)
        earlier.commit()
    path.write_bytes(backup.read_bytes())
    Path(f"{path}-wal").write_bytes(wal)
    with closing(sqlite3.connect(path)) as restored, pytest.raises(sqlite3.DatabaseError) as raised:
        restored.execute("SELECT sum(length(x)) FROM a").fetchone()
    problem = find_problem(sqlite(raised.value.sqlite_errorcode, str(raised.value)))
    assert problem is configuration_errors.NO_DATABASE_FILE
    assert "remove -wal and -shm" in problem.remedy
