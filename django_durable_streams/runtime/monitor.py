"""The database monitor: a circuit breaker between the requests and a database that does not answer.

One thread finds out whether the database answers. While it does not, requests are refused at once with 503, and only
that thread tries to connect. A frozen database, or one behind a broken network, does not even refuse. So the monitor
also finds dedicated connections that got no answer for long, and cuts them. Knows no stream.
"""

from __future__ import annotations

import logging
import os
import time
from threading import Event, Lock, Thread

from django.db import Error, connections

from ..protocol.errors import ServiceUnavailable
from . import execution
from .configuration_errors import NO_CONNECTION, ProblemReporter, find_problem
from .connection import DedicatedConnection

logger = logging.getLogger(__name__)

INTERVAL = 0.25
"""Seconds between two checks of the connections, and between two attempts to connect."""

STUCK_SECONDS = 0.75
"""Seconds of work on one connection after which a probe asks whether the database answers at all."""

PROBE_SECONDS = 1.0
"""Seconds in which the probe needs an answer. A slow statement alone is no reason to cut: disks and locks are slow."""

MAX_PROBE_SECONDS = 5.0
"""Seconds after which a probe without an answer is cut, and the next one begins. Behind a proxy its connection may stay
silent, while the database answers over new ones."""

MAX_WORK_SECONDS = 120.0
"""Seconds of work after which a connection is cut although the database answers over others. No statement of the
service takes so long. So the server of this connection is gone, and a proxy keeps the connection open."""

REPLACE_SECONDS = 1.0
"""Seconds between two times at which all connections are replaced. A database may be read-only for long."""


class DatabaseMonitor:
    """Watches the dedicated connections of this process to one database.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self.answers = True
        """Whether the database answered the last time."""
        self.problem_reporter = ProblemReporter(using, self._replace_connections)
        self._problem: str | None = None
        """The configuration problem, if that is why the database cannot be used. This is no exception object: each
        request that raised it would attach its frames to it, with all that they refer to."""
        self.latest_connection = object()
        """Another object after each connection that was made: it may lead to another server than the earlier ones."""
        self._using = using
        self._connections: list[DedicatedConnection] = []
        self._replaced_at = -REPLACE_SECONDS
        self._vouched: dict[DedicatedConnection, float] = {}  # when a probe was answered while they were stuck
        self._due = Event()
        self._stopping = False
        self._suspicion: str | None = None
        self._probe: Probe | None = None
        self._thread: Thread | None = None
        if connections[using].vendor != "sqlite":  # a file does not become unreachable
            self._thread = execution.start_thread(self._run, "durable-streams-monitor")

    def new_connection(self, lock_seconds: int | None = None) -> DedicatedConnection:
        """Return a new dedicated connection that the monitor watches. See `DedicatedConnection` for the argument."""
        connection = DedicatedConnection(self._using, lock_seconds, self._note_connection)
        self._connections.append(connection)
        return connection

    def _note_connection(self) -> None:
        self.latest_connection = object()

    def suspect(self, error: Exception) -> None:
        """Report that connecting failed, so that the monitor checks the database soon. Safe to call from any thread."""
        self._problem = self._report_problem(error)
        if self._thread is None and self._problem is None:
            logger.error("The database cannot be opened: %s", error)
        # As a text: the traceback of the exception would keep the objects of its frames alive.
        self._suspicion = str(error) or type(error).__name__
        self._due.set()

    def refusal(self) -> ServiceUnavailable:
        """Return the error for requests that come while the database does not answer or cannot be opened."""
        return ServiceUnavailable(self._problem or "The database does not answer. Try again.")

    def _report_problem(self, error: BaseException | None) -> str | None:
        refusal = self.problem_reporter.report(error)
        return None if refusal is None else refusal.detail

    def _replace_connections(self) -> None:
        """Let all connections be opened again, because one takes no changes.

        Its server may have been demoted. Other connections to it would go on to read, and would not see what the new
        primary commits.
        """
        now = time.monotonic()
        if now - self._replaced_at >= REPLACE_SECONDS:
            self._replaced_at = now
            for connection in self._connections:
                connection.mark_outdated()

    def retire(self) -> None:
        """Have the next call of `monitor_for` make a new monitor. This one goes on until `stop`."""
        with _lock:
            if _monitors.get(self._using) is self:
                del _monitors[self._using]

    def stop(self) -> None:
        """End the thread, and that of a probe that waits for an answer."""
        self.retire()
        self._stopping = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        if self._probe is not None:
            self._probe.cut()

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait(INTERVAL)
            self._due.clear()
            try:
                self._check()
            except BaseException:  # the thread must outlive every bug
                logger.exception("A check of the connections to the database failed. It is tried again.")

    def _check(self) -> None:
        suspicion, self._suspicion = self._suspicion, None
        stuck = self._stuck_connections()
        if self.answers and not stuck and suspicion is None:
            return
        probe = self._probe_database()
        self._problem = self._report_problem(probe.error)
        if probe.answered:
            now = time.monotonic()
            self._vouched = dict.fromkeys(stuck, now)
            self._cut_silent(stuck, now - MAX_WORK_SECONDS)
            if not self.answers:
                logger.warning("The database answers again.", extra={"database": self._using})
                self.answers = True
            return
        if self.answers:
            self.answers = False
            if self._problem is None:
                reason = probe.error or suspicion or f"no answer for {STUCK_SECONDS + PROBE_SECONDS:.2f} s"
                message = "The database does not answer. Until it does, requests get 503. (%s)"
                logger.error(message, reason, extra={"database": self._using})
        if not probe.done.is_set():
            # No answer at all: connections wait for nothing. A connection that is refused has ended by itself.
            for connection in self._connections:
                if connection.since is not None:
                    connection.cut()

    def _stuck_connections(self) -> list[DedicatedConnection]:
        """Return the connections that have worked for long without a successful probe since."""
        limit = time.monotonic() - STUCK_SECONDS
        return [
            connection
            for connection in self._connections
            if (since := connection.since) is not None and max(since, self._vouched.get(connection, 0.0)) < limit
        ]

    def _cut_silent(self, stuck: list[DedicatedConnection], limit: float) -> None:
        for connection in stuck:
            since = connection.since
            if since is not None and since < limit:
                logger.warning(
                    "A connection got no answer for %d s, but the database answers. It is cut.", MAX_WORK_SECONDS
                )
                connection.cut()

    def _probe_database(self) -> Probe:
        """Query the database over a new connection, and wait up to `PROBE_SECONDS` for the answer."""
        if self._probe is None or self._probe.done.is_set():
            self._probe = Probe(self._using)
        elif time.monotonic() - self._probe.began > MAX_PROBE_SECONDS:
            self._probe.cut()
        self._probe.done.wait(PROBE_SECONDS)  # a probe without an answer so far is used again
        return self._probe


class Probe:
    """One query of the database, in a thread of its own, because it may take any time."""

    def __init__(self, using: str) -> None:
        self.done = Event()
        self.answered = False
        self.error: Exception | None = None
        self.began = time.monotonic()
        self._connection = DedicatedConnection(using)
        execution.start_thread(self._run, "durable-streams-probe")

    def cut(self) -> None:
        """End the wait for the answer."""
        self._connection.cut()

    def _run(self) -> None:
        try:
            self._connection.open()
            with connections[self._connection.using].cursor() as cursor:
                cursor.execute("SELECT 1")
            self.answered = True
        except Error as error:
            self.error = error
            # Without a free connection the database works: threads that have one can go on.
            self.answered = find_problem(error) is NO_CONNECTION
        finally:
            self._connection.close()
            self.done.set()


_monitors: dict[str, DatabaseMonitor] = {}
_lock = Lock()


def monitor_for(using: str) -> DatabaseMonitor:
    """Return this process's monitor of a database. It is made at the first call, and again after each stop."""
    with _lock:
        monitor = _monitors.get(using)
        if monitor is None:
            monitor = _monitors[using] = DatabaseMonitor(using)
        return monitor


def latest_connection(using: str) -> object:
    """Return an object that is another one after each connection of this process to a database that is monitored."""
    monitor = _monitors.get(using)
    return None if monitor is None else monitor.latest_connection


def _forget_monitors() -> None:
    global _lock
    _monitors.clear()
    _lock = Lock()


# Threads do not survive a fork, so a child makes monitors of its own.
os.register_at_fork(after_in_child=_forget_monitors)
