"""The database as it runs: whether it takes changes, whether a commit is safe, and whether clocks agree."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from django.db import Error, connections, transaction

from ... import clock
from ...models import DatabaseIdentity, Stream
from ...protocol.errors import DurableStreamsError
from ...protocol.offsets import new_generation
from .findings import Finding, error, ok, warning
from .project import database_error

CLOCK_SECONDS = 1.0
"""Difference between two clocks from which streams end visibly early or late."""

UNSAFE = "The last acknowledged appends may be lost"


_IDENTITY_REMEDY = "Run manage.py migrate --database {}, or start the workers: each of both makes one."


def examine_database(using: str) -> Iterator[Finding]:
    """Make a change that is rolled back, and read the options that decide what a commit means."""
    try:
        if not DatabaseIdentity.objects.using(using).exists():
            yield error("database", "The database has no identity.", _IDENTITY_REMEDY.format(using))
        with transaction.atomic(using=using):
            Stream.objects.using(using).create(path=f"doctor/{secrets.token_hex(8)}").append(b"x")
            transaction.set_rollback(True, using=using)
        yield ok("database", "The database takes changes.")
        vendor = connections[using].vendor
        options = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}.get(vendor)
        if options is not None:
            yield from options(using)
        yield from _clocks(using, vendor)
    except Error as problem:
        yield database_error(problem)
    except DurableStreamsError as problem:
        yield error("database", problem.detail, "See the log.")


def _value(using: str, sql: str) -> Any:
    with connections[using].cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
        return row[0] if row else None


def _sqlite(using: str) -> Iterator[Finding]:
    mode = _value(using, "PRAGMA journal_mode")
    if mode not in ("wal", "memory"):
        yield warning(
            "database",
            f"The journal mode is {mode}: readers and the writer block each other.",
            "Set 'init_command': 'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;' in OPTIONS.",
        )
    level = int(_value(using, "PRAGMA synchronous"))
    if level == 0:
        yield error(
            "database",
            "synchronous is OFF: a crash of the machine may damage the file.",
            "Set PRAGMA synchronous=FULL in 'init_command'.",
        )
    elif level == 1 and mode == "wal":
        yield warning(
            "database",
            f"synchronous is NORMAL. {UNSAFE} when the machine loses power.",
            "Set PRAGMA synchronous=FULL in 'init_command', unless that is acceptable.",
        )
    else:
        yield ok("database", "A commit survives a crash of the machine.")


def _postgresql(using: str) -> Iterator[Finding]:
    if _value(using, "SELECT pg_is_in_recovery()"):
        yield error("database", "This is a standby, which takes no changes.", "Connect to the primary.")
    if _value(using, "SHOW fsync") == "off":
        yield error("database", "fsync is off: a crash may damage the database.", "Set fsync = on in postgresql.conf.")
    if _value(using, "SHOW synchronous_commit") == "off":
        yield warning(
            "database",
            f"synchronous_commit is off. {UNSAFE} when the database crashes.",
            "Set synchronous_commit = on, unless that is acceptable.",
        )
    else:
        yield ok("database", "A commit survives a crash of the database.")


def _mysql(using: str) -> Iterator[Finding]:
    if int(_value(using, "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")) != 1:
        yield warning(
            "database",
            f"innodb_flush_log_at_trx_commit is not 1. {UNSAFE} when the machine crashes.",
            "Set innodb_flush_log_at_trx_commit = 1, unless that is acceptable.",
        )
    else:
        yield ok("database", "A commit survives a crash of the database.")


_TIME = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT UNIX_TIMESTAMP(NOW(6))",
}


def _clocks(using: str, vendor: str) -> Iterator[Finding]:
    before = time.time()
    their_time = float(_value(using, _TIME[vendor])) if vendor in _TIME else before
    difference = their_time - (before + time.time()) / 2
    if abs(difference) > CLOCK_SECONDS:
        yield warning(
            "clocks",
            f"The clock of the database is {difference:+.1f} s from the clock of this machine.",
            "Synchronise all clocks by NTP: TTLs and expiry use the clocks of the servers.",
        )
    newest = Stream.objects.using(using).order_by("-pk").values_list("generation", flat=True).first() or 0
    ahead = (newest - new_generation()) / 1e6
    if ahead > CLOCK_SECONDS:
        yield warning(
            "clocks",
            f"The newest stream was created {ahead:.0f} s in the future of this machine ({clock.now():%H:%M:%S} UTC).",
            "Set this machine's clock, or that of the server which created it.",
        )
    elif abs(difference) <= CLOCK_SECONDS:
        yield ok("clocks", "The clocks agree.")
