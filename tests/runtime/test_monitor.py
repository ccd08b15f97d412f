"""The database monitor tells whether the database answers, and cuts connections on which nothing comes back."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import Error, OperationalError

from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime import monitor as module
from django_durable_streams.runtime.monitor import DatabaseMonitor

SECONDS = 5.0


class FakeDatabase:
    """What the monitor's probes meet: an answer, a refusal, or silence."""

    def __init__(self) -> None:
        self.error: Any = None
        self.is_silent = False
        self.is_full = False
        """Whether the error is that it takes no more connections."""
        self.cuts = 0
        self.probes = 0

    def probe(self, using: str) -> Any:
        self.probes += 1
        if isinstance(self.error, RuntimeError | SystemExit):
            raise self.error
        done = threading.Event()
        if not self.is_silent:
            done.set()
        answered = not self.is_silent and (self.error is None or self.is_full)

        def cut() -> None:
            self.cuts += 1
            done.set()

        return SimpleNamespace(done=done, answered=answered, error=self.error, began=time.monotonic(), cut=cut)


class FakeConnection:
    """A connection of a thread that is at work, or idle where `since` is None."""

    def __init__(self, using: str, lock_seconds: int | None, on_open: Callable[[], None]) -> None:
        self.on_open = on_open
        self.since: float | None = None
        self.is_cut = False
        self.outdated = 0

    def mark_outdated(self) -> None:
        self.outdated += 1

    def cut(self) -> None:
        self.is_cut = True


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    """A database server that is looked at a hundred times a second."""
    database = FakeDatabase()
    monkeypatch.setattr(module, "connections", {"default": SimpleNamespace(vendor="postgresql")})
    monkeypatch.setattr(module, "Probe", database.probe)
    monkeypatch.setattr(module, "DedicatedConnection", FakeConnection)
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.01)
    return database


@pytest.fixture
def monitor(database: FakeDatabase) -> Iterator[DatabaseMonitor]:
    monitor = DatabaseMonitor("default")
    yield monitor
    monitor.stop()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def working(monitor: DatabaseMonitor, seconds: float) -> Any:
    """Return a connection that has been at work for some time."""
    connection = monitor.new_connection()
    connection.since = time.monotonic() - seconds
    return connection


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_suspicion_that_the_database_denies_refuses_nobody(
    monitor: DatabaseMonitor, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.suspect(OperationalError("the connection was lost"))
    until(lambda: database.probes == 1)
    monitor.stop()
    assert monitor.answers
    assert messages(caplog) == []


def test_a_database_that_refuses_is_reported_once_and_so_is_its_return(
    monitor: DatabaseMonitor, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.error = OperationalError("connection refused")
    monitor.suspect(database.error)
    until(lambda: not monitor.answers)
    until(lambda: database.probes > 3)  # it goes on asking
    database.error = None
    until(lambda: monitor.answers)
    monitor.stop()
    lost, back = messages(caplog)
    assert lost.startswith("The database does not answer.")
    assert "connection refused" in lost
    assert back == "The database answers again."


def test_while_the_database_refuses_no_connection_is_cut(monitor: DatabaseMonitor, database: FakeDatabase) -> None:
    connection = working(monitor, module.STUCK_SECONDS + 1)
    database.error = OperationalError("connection refused")
    until(lambda: not monitor.answers)
    monitor.stop()
    assert not connection.is_cut


def test_when_the_database_is_silent_the_connections_at_work_are_cut(
    monitor: DatabaseMonitor, database: FakeDatabase
) -> None:
    database.is_silent = True
    idle = monitor.new_connection()
    connections = [working(monitor, module.STUCK_SECONDS + 1), working(monitor, 0)]
    until(lambda: all(connection.is_cut for connection in connections))
    monitor.stop()
    assert not monitor.answers
    assert not idle.is_cut  # type: ignore[attr-defined]
    assert database.probes == 1  # the one that nobody answers is waited for, not joined by others
    assert database.cuts == 1  # at the end, so that no thread is left


def test_a_probe_that_is_never_answered_is_cut_and_another_one_finds_that_the_database_answers(
    monitor: DatabaseMonitor, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a proxy, whose connection to a server that is gone stays open and silent."""
    monkeypatch.setattr(module, "MAX_PROBE_SECONDS", 0.1)
    database.is_silent = True
    monitor.suspect(OperationalError("lost"))
    until(lambda: not monitor.answers)
    database.is_silent = False
    until(lambda: monitor.answers)
    monitor.stop()
    assert database.cuts >= 1


def test_a_slow_statement_is_no_reason_to_cut_its_connection(monitor: DatabaseMonitor, database: FakeDatabase) -> None:
    connection = working(monitor, module.STUCK_SECONDS + 1)
    until(lambda: database.probes == 1)
    monitor.stop()
    assert monitor.answers
    assert not connection.is_cut


def test_a_connection_that_stays_silent_is_cut_although_the_database_answers_over_others(
    monitor: DatabaseMonitor, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    slow = working(monitor, module.MAX_WORK_SECONDS - 60)
    silent = working(monitor, module.MAX_WORK_SECONDS + 1)
    until(lambda: silent.is_cut)
    monitor.stop()
    assert monitor.answers
    assert not slow.is_cut
    assert "got no answer for 120 s" in caplog.text


def test_after_an_answer_a_slow_statement_is_left_alone_for_a_while(
    monitor: DatabaseMonitor, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Semaphore(0)
    stuck = monitor._stuck_connections
    monkeypatch.setattr(monitor, "_stuck_connections", lambda: (looked.release(), stuck())[1])
    working(monitor, module.STUCK_SECONDS + 1)
    until(lambda: database.probes == 1)
    for _ in range(10):
        assert looked.acquire(timeout=SECONDS)
    monitor.stop()
    assert database.probes == 1


def test_a_refusal_says_what_is_to_be_set_right_until_the_database_answers(
    monitor: DatabaseMonitor, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    assert "does not answer" in str(monitor.refusal())
    database.error = OperationalError('FATAL: password authentication failed for user "x"')
    monitor.suspect(database.error)
    until(lambda: not monitor.answers)
    refusal = monitor.refusal()
    assert isinstance(refusal, ServiceUnavailable)
    assert "log says what to do" in str(refusal)
    database.error = None
    until(lambda: monitor.answers)
    assert "does not answer" in str(monitor.refusal())
    monitor.stop()
    assert sum("cannot be used" in message for message in messages(caplog)) == 1
    assert not any("does not answer" in message for message in messages(caplog))


def test_a_refusal_says_that_no_connection_is_free_and_others_go_on(
    monitor: DatabaseMonitor, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.is_full = True
    database.error = OperationalError("FATAL:  sorry, too many clients already")
    for number in range(1, 4):
        monitor.suspect(database.error)
        until(lambda: database.probes == number)  # noqa: B023
    monitor.stop()
    assert monitor.answers
    assert "no free connection" in str(monitor.refusal())
    assert sum("no free connection" in message for message in messages(caplog)) == 1


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), SystemExit("a bug")], ids=repr)
def test_a_bug_does_not_end_the_thread(
    monitor: DatabaseMonitor, database: FakeDatabase, caplog: pytest.LogCaptureFixture, bug: BaseException
) -> None:
    database.error = bug
    monitor.suspect(OperationalError("lost"))
    until(lambda: "a bug" in caplog.text)
    database.error = OperationalError("connection refused")
    monitor.suspect(database.error)
    until(lambda: not monitor.answers)


def test_on_sqlite_nothing_is_watched_and_a_file_that_cannot_be_opened_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "connections", {"default": SimpleNamespace(vendor="sqlite")})
    before = threading.active_count()
    monitor = DatabaseMonitor("default")
    assert threading.active_count() == before
    with caplog.at_level(logging.ERROR):
        monitor.suspect(OperationalError("disk I/O error"))
    assert messages(caplog) == ["The database cannot be opened: disk I/O error"]
    monitor.stop()


def database_error(sqlstate: str | None, *args: object) -> Error:
    """Return an error as psycopg (with an SQLSTATE) or mysqlclient (with a number) makes it."""
    error = OperationalError(*args)
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": sqlstate})()
    return error


@pytest.mark.parametrize(
    ("error", "answers"),
    [
        (None, True),
        (database_error("53300", "too many connections"), True),
        (database_error(None, "connection failed: FATAL:  sorry, too many clients already"), True),
        (database_error(None, 'connection failed: FATAL:  too many connections for role "x"'), True),
        (database_error(None, 1040, "Too many connections"), True),
        (database_error(None, 1203, "max_user_connections"), True),
        (database_error("57P03", "the database system is starting up"), False),
        (database_error(None, 2002, "Can't connect"), False),
    ],
    ids=str,
)
def test_a_server_with_too_many_connections_is_one_that_answers(
    monkeypatch: pytest.MonkeyPatch, error: Error | None, answers: bool
) -> None:
    closed = threading.Event()

    class Connection:
        def __init__(self, using: str) -> None:
            self.using = using

        def open(self) -> None:
            if error is not None:
                raise error

        def close(self) -> None:
            closed.set()

    class Cursor:
        def __enter__(self) -> "Cursor":
            return self

        def __exit__(self, *details: object) -> None:
            pass

        def execute(self, statement: str) -> None:
            assert statement == "SELECT 1"

    monkeypatch.setattr(module, "DedicatedConnection", Connection)
    monkeypatch.setattr(module, "connections", {"default": SimpleNamespace(cursor=Cursor)})
    probe = module.Probe("default")
    assert probe.done.wait(SECONDS)
    assert (probe.answered, probe.error) == (answers, error)
    assert closed.is_set()


def test_each_connection_that_is_made_can_be_noticed(monitor: DatabaseMonitor) -> None:
    """It may lead to another server, so that others have to ask again where the database is."""
    connections: list[Any] = [monitor.new_connection(), monitor.new_connection()]
    seen = [monitor.latest_connection]
    for connection in connections * 2:
        assert monitor.latest_connection is seen[-1]
        connection.on_open()
        seen.append(monitor.latest_connection)
    assert len({*map(id, seen)}) == 5


def test_all_connections_are_replaced_when_one_takes_no_changes(
    monitor: DatabaseMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server was demoted. Connections that read would stay with it, and see nothing new."""
    connections: list[Any] = [monitor.new_connection(), monitor.new_connection()]
    error = OperationalError(1290, "The MariaDB server is running with the --read-only option")
    monitor.problem_reporter.report(OperationalError(1146, "no such table"))
    assert [connection.outdated for connection in connections] == [0, 0]
    monitor.problem_reporter.report(error)
    monitor.problem_reporter.report(error)
    assert [connection.outdated for connection in connections] == [1, 1]
    monkeypatch.setattr(module, "REPLACE_SECONDS", 0.0)
    monitor.problem_reporter.report(error)
    assert [connection.outdated for connection in connections] == [2, 2]
