"""What goes wrong, and when: one decision at each point at which the world could fail."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass, fields
from typing import Any

from .scheduler import Scheduler


@dataclass
class Rates:
    """How likely each fault is, each time that it could happen. A seed has some of them: all would hide each other."""

    slow_statement: float = 0.0
    """A statement takes up to half a second."""
    failed_statement: float = 0.0
    """A statement fails: the disk, or the connection."""
    failed_commit: float = 0.0
    busy: float = 0.0
    """The database is locked, as by a program that nobody sees."""
    lost_message: float = 0.0
    late_message: float = 0.0
    doubled_message: float = 0.0
    redis_down: float = 0.0
    """For each second."""
    slow_network: float = 0.0
    disconnect: float = 0.0
    """A client leaves before it has its answer."""
    lost_answer: float = 0.0
    """The connection breaks when the server sends."""
    killed_process: float = 0.0
    """For each second."""
    stall: float = 0.0
    """A thread stops for a while, at each point where another could go on."""
    clock_jump: float = 0.0
    """The clock on the wall is set, for each second."""
    held_lock: float = 0.0
    """A Python transaction takes its time."""
    held_database: float = 0.0
    """A program that nobody sees writes for a second or two, for each second."""

    @classmethod
    def some(cls, rng: random.Random) -> Rates:
        """Return rates of which some are zero."""
        usual = {
            "slow_statement": 0.05,
            "failed_statement": 0.02,
            "failed_commit": 0.03,
            "busy": 0.05,
            "lost_message": 0.3,
            "late_message": 0.5,
            "doubled_message": 0.3,
            "redis_down": 0.2,
            "slow_network": 0.3,
            "disconnect": 0.05,
            "lost_answer": 0.05,
            "killed_process": 0.2,
            "stall": 0.002,
            "clock_jump": 0.1,
            "held_lock": 0.5,
            "held_database": 0.2,
        }
        if rng.random() < 0.1:
            return cls()
        share = rng.choice((0.2, 0.5, 0.8))
        return cls(**{name: rate * rng.choice((0.3, 1, 2)) for name, rate in usual.items() if rng.random() < share})

    def __str__(self) -> str:
        received = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {rate:g}" for name, rate in received.items() if rate) or "no faults"


class Faults:
    """Decides, and takes note of what it has done.

    active: whether anything goes wrong still; at the end of a run nothing does.
    """

    def __init__(self, scheduler: Scheduler, rng: random.Random, rates: Rates, note: Any) -> None:
        self.active = True
        self.rates = rates
        self._scheduler = scheduler
        self._rng = rng
        self._note = note

    def happens(self, rate: float) -> bool:
        """Whether something goes wrong that does so at this rate."""
        return self.active and rate > 0 and self._rng.random() < rate

    def latency(self) -> float:
        """How long something takes on the network, in seconds."""
        if self.happens(self.rates.slow_network):
            return self._rng.choice((0.002, 0.05, 0.5)) * self._rng.random()
        return 0.0005

    def deliveries(self) -> list[float]:
        """After how long a message comes: not at all, or more than once."""
        if self.happens(self.rates.lost_message):
            return []
        rates = self.rates
        late = self._rng.choice((0.01, 0.3, 3.0)) * self._rng.random() if self.happens(rates.late_message) else 0.0005
        twice = self.happens(rates.doubled_message)
        return [late, late + self._rng.random()] if twice else [late]

    def before_statement(self, connection: Any, sql: str) -> None:
        """Let others go on before a statement, and time pass; or raise what it fails with."""
        scheduler = self._scheduler
        scheduler.pause()
        rates = self.rates
        if self.happens(rates.slow_statement):
            scheduler.sleep(self._rng.choice((0.002, 0.05, 0.5)) * self._rng.random())
        if sql.startswith(("ROLLBACK", "RELEASE")):
            return  # needs no disk, and Django takes what fails there for granted
        is_commit = sql.startswith("COMMIT")
        if not is_commit and not connection.in_transaction and self.happens(rates.busy):
            self._note(f"locked: {sql[:40]}")
            raise _error("database is locked", sqlite3.SQLITE_BUSY)
        if self.happens(rates.failed_commit if is_commit else rates.failed_statement):
            message, code = self._rng.choice(
                (("disk I/O error", sqlite3.SQLITE_IOERR), ("database or disk is full", sqlite3.SQLITE_FULL))
            )
            # SQLite rolls back by itself then, as a rule.
            if connection.in_transaction and self._rng.random() < 0.7:
                sqlite3.Connection.rollback(connection)
            self._note(f"{message}: {sql[:40]}")
            raise _error(message, code)

    def before_travel(self) -> str:
        """Let others go on before statements go to a server; return when the connection is lost, if it is."""
        self._scheduler.pause()
        if self.happens(self.rates.slow_statement):
            self._scheduler.sleep(self._rng.choice((0.002, 0.05, 0.5)) * self._rng.random())
        if self.happens(self.rates.failed_statement):
            when = self._rng.choice(("before", "after"))
            self._note(f"connection lost {when} a statement")
            return when
        return ""

    def after_statement(self, connection: Any, sql: str) -> None:
        """Let others go on once something is committed, and nobody has been told."""
        if sql.startswith("COMMIT"):
            self._scheduler.pause()
            if self.happens(self.rates.slow_statement):
                self._scheduler.sleep(0.3 * self._rng.random())


def _error(message: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error
