"""Whether the database answers: found out by few, so that the many who ask for streams are told at once.

While it does not, requests are refused without being tried, and one thread tries to connect. A database that is frozen,
or behind a broken network, does not even refuse: lines on which nothing comes back are found here, and cut.
"""

from __future__ import annotations

import logging
import os
import time
from threading import Event, Lock, Thread

from django.db import Error, connections

from ..protocol.errors import ServiceUnavailable
from .configuration_errors import ProblemReporter
from .connection import DedicatedConnection

logger = logging.getLogger(__name__)

INTERVAL = 0.25
"""Seconds between two looks at the lines, and between two attempts to connect."""

PATIENCE = 0.75
"""Seconds that a line may be at work before somebody asks whether the database is there at all."""

PROBE_SECONDS = 1.0
"""Seconds in which it has to answer that question. A slow statement is no reason to cut a line: a busy disk, a lock."""


class DatabaseMonitor:
    """Watches the lines of one engine.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self.answers = True
        """Whether the database answers, as far as is known."""
        self.problem_reporter = ProblemReporter(using)
        self._advice: str | None = None
        """What has to be set right, where that is known. It is not kept as an exception: each request that raised that
        would hang its frames on to it, and whatever these hold."""
        self._using = using
        self._connections: list[DedicatedConnection] = []
        self._vouched: dict[DedicatedConnection, float] = {}
        self._due = Event()
        self._stopping = False
        self._suspicion: object = None
        self._probe: Probe | None = None
        self._thread: Thread | None = None
        if connections[using].vendor != "sqlite":  # a file does not go away, or not so that others could tell
            self._thread = Thread(target=self._run, name="durable-streams-pulse", daemon=True)
            self._thread.start()

    def new_connection(self, lock_seconds: int | None = None) -> DedicatedConnection:
        """Return a new line that is watched."""
        connection = DedicatedConnection(self._using, lock_seconds)
        self._connections.append(connection)
        return connection

    def suspect(self, error: Exception) -> None:
        """Somebody could not connect: see soon whether anybody can. Safe to call from any thread."""
        self._advice = self._advice_on(error)
        if self._thread is None and self._advice is None:
            logger.error("The database cannot be opened: %s", error)
        # Without its traceback, which would keep what the thread was at.
        self._suspicion = str(error) or type(error).__name__
        self._due.set()

    def refusal(self) -> ServiceUnavailable:
        """Return what to answer while the database does not, or cannot be opened."""
        return ServiceUnavailable(self._advice or "The database does not answer. Try again.")

    def _advice_on(self, error: BaseException | None) -> str | None:
        refusal = self.problem_reporter.refusal(error)
        return None if refusal is None else refusal.detail

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._due.set()
        if _monitors.get(self._using) is self:
            del _monitors[self._using]
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait(INTERVAL)
            self._due.clear()
            try:
                self._look()
            except Exception:  # the thread must outlive every bug
                logger.exception("A look at the database's connections failed.")

    def _look(self) -> None:
        suspicion, self._suspicion = self._suspicion, None
        stuck = self._stuck()
        if self.answers and not stuck and suspicion is None:
            return
        probe = self._ask()
        if probe.answered:
            now = time.monotonic()
            self._vouched = dict.fromkeys(stuck, now)
            self._advice = None
            if not self.answers:
                logger.warning("The database answers again.")
                self.answers = True
            return
        self._advice = self._advice_on(probe.error)
        if self.answers:
            self.answers = False
            if self._advice is None:
                reason = probe.error or suspicion or f"it said nothing for {PATIENCE + PROBE_SECONDS:.2f} s"
                logger.error("The database does not answer. Until it does, requests get 503. (%s)", reason)
        if not probe.done.is_set():
            # Silence: nobody gets anything any more. One who is refused has heard of it already.
            for connection in self._connections:
                if connection.since is not None:
                    connection.cut()

    def _stuck(self) -> list[DedicatedConnection]:
        """Return the lines that have been at work for long, and for which the database was not asked since."""
        limit = time.monotonic() - PATIENCE
        return [
            connection
            for connection in self._connections
            if (since := connection.since) is not None and max(since, self._vouched.get(connection, 0.0)) < limit
        ]

    def _ask(self) -> Probe:
        """Ask the database for something over a new connection, and wait a little for the answer."""
        if self._probe is None or self._probe.done.is_set():
            self._probe = Probe(self._using)
        self._probe.done.wait(PROBE_SECONDS)  # one that was still at it is asked again
        return self._probe


# PostgreSQL's SQLSTATE, and numbers of MySQL and MariaDB: there are too many connections.
_CROWDED: frozenset[object] = frozenset({"53300", 1040, 1203})


class Probe:
    """One attempt to have the database answer, in a thread of its own, as it may take however long it takes."""

    def __init__(self, using: str) -> None:
        self.done = Event()
        self.answered = False
        self.error: Exception | None = None
        self._connection = DedicatedConnection(using)
        Thread(target=self._run, name="durable-streams-probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._connection.open()
            with connections[self._connection.using].cursor() as cursor:
                cursor.execute("SELECT 1")
            self.answered = True
        except Error as error:
            self.error = error
            # Those who have a connection can go on.
            self.answered = not _CROWDED.isdisjoint((getattr(error.__cause__, "sqlstate", None), *error.args))
        finally:
            self._connection.close()
            self.done.set()


_monitors: dict[str, DatabaseMonitor] = {}
_lock = Lock()


def monitor_for(using: str) -> DatabaseMonitor:
    """Return this process's monitor of a database, made at the first call and after each stop."""
    with _lock:
        monitor = _monitors.get(using)
        if monitor is None:
            monitor = _monitors[using] = DatabaseMonitor(using)
        return monitor


def _forget_monitors() -> None:
    global _lock
    _monitors.clear()
    _lock = Lock()


# Threads do not survive a fork, so a child makes monitors of its own.
os.register_at_fork(after_in_child=_forget_monitors)
