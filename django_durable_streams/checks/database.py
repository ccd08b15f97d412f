"""Checks of the database's settings for concurrent use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections, router

from ..models import Stream
from ..runtime import drivers

_WAL = re.compile(r"journal_mode\s*=\s*['\"]?wal", re.IGNORECASE)


@register()
def check_database(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E014: PostgreSQL without psycopg 3. W006: SQLite without IMMEDIATE. W007: SQLite without WAL.

    W008: CONN_MAX_AGE under ASGI. W011: dirty reads.
    """
    alias = router.db_for_write(Stream)
    connection = connections[alias]
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return _check_sqlite(alias, database)
    return [
        *_check_driver(connection.vendor),
        *_check_connections(alias, database),
        *_check_isolation(alias, connection.vendor, database),
    ]


def _check_driver(vendor: str) -> list[CheckMessage]:
    if vendor != "postgresql" or drivers.has_psycopg():
        return []
    return [Error(drivers.PROBLEM, hint=drivers.REMEDY, id="durable_streams.E014")]


def _check_isolation(alias: str, vendor: str, database: Mapping[str, Any]) -> list[CheckMessage]:
    level = str((database.get("OPTIONS") or {}).get("isolation_level") or "")
    if vendor != "mysql" or level.lower() != "read uncommitted":
        return []
    return [
        Warning(
            f"Transactions of the database {alias!r} read uncommitted data.",
            hint="Readers could receive data that is rolled back later. Set 'isolation_level' in its OPTIONS to "
            "'read committed' or 'repeatable read'.",
            id="durable_streams.W011",
        )
    ]


def _check_connections(alias: str, database: Mapping[str, Any]) -> list[CheckMessage]:
    if database.get("CONN_MAX_AGE") != 0 and getattr(settings, "ASGI_APPLICATION", None):
        return [
            Warning(
                f"The database {alias!r} has a CONN_MAX_AGE, but persistent connections do not work under ASGI.",
                hint="Under ASGI each request has a thread of its own, and its connection stays open. Set CONN_MAX_AGE "
                "to 0. With PostgreSQL, OPTIONS['pool'] avoids new connections. This app's threads keep theirs anyway.",
                id="durable_streams.W008",
            )
        ]
    return []


def _check_sqlite(alias: str, database: Mapping[str, Any]) -> list[CheckMessage]:
    options = database.get("OPTIONS") or {}
    problems: list[CheckMessage] = []
    if str(options.get("transaction_mode") or "").upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        problems.append(
            Warning(
                f"Transactions of the SQLite database {alias!r} begin without the write lock. They fail with "
                "'database is locked' if they read first and then write.",
                hint="Set 'transaction_mode': 'IMMEDIATE' in its OPTIONS.",
                id="durable_streams.W006",
            )
        )
    if _WAL.search(str(options.get("init_command") or "")) is None and not _is_in_wal(database):
        problems.append(
            Warning(
                f"Readers and the writer of the SQLite database {alias!r} block each other without WAL mode.",
                hint="Set 'init_command': 'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;' in its OPTIONS.",
                id="durable_streams.W007",
            )
        )
    return problems


def _is_in_wal(database: Mapping[str, Any]) -> bool:
    """Return whether the file is in WAL mode, which outlives connections. True for a database in memory."""
    name = str(database.get("NAME") or "")
    if not name or ":memory:" in name or "mode=memory" in name:
        return True
    try:
        with Path(name).open("rb") as file:
            return file.read(20)[18:20] == b"\x02\x02"
    except OSError:
        return False
