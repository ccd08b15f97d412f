"""Whether the database is set up so that many can use it at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register
from django.db import connections, router

from ..models import Stream

_WAL = re.compile(r"journal_mode\s*=\s*['\"]?wal", re.IGNORECASE)


@register()
def check_database(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W006: SQLite without IMMEDIATE. W007: SQLite without WAL. W008: CONN_MAX_AGE under ASGI. W011: dirty reads."""
    alias = router.db_for_write(Stream)
    connection = connections[alias]
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return _sqlite(alias, given)
    return [*_connections(alias, given), *_isolation(alias, connection.vendor, given)]


def _isolation(alias: str, vendor: str, given: Mapping[str, Any]) -> list[CheckMessage]:
    level = str((given.get("OPTIONS") or {}).get("isolation_level") or "")
    if vendor != "mysql" or level.lower() != "read uncommitted":
        return []
    return [
        Warning(
            f"Transactions of the database {alias!r} read what others have not committed.",
            hint="A stream could be read, forked or continued from data that is rolled back. Set 'isolation_level' in "
            "its OPTIONS to 'read committed' or 'repeatable read'.",
            id="durable_streams.W011",
        )
    ]


def _connections(alias: str, given: Mapping[str, Any]) -> list[CheckMessage]:
    if given.get("CONN_MAX_AGE") != 0 and getattr(settings, "ASGI_APPLICATION", None):
        return [
            Warning(
                f"The database {alias!r} has a CONN_MAX_AGE, which does not work under ASGI.",
                hint="Each request has a thread of its own there, and leaves its connection behind. Leave CONN_MAX_AGE "
                "at 0; with PostgreSQL, OPTIONS['pool'] spares connecting. The app's own threads keep theirs anyway.",
                id="durable_streams.W008",
            )
        ]
    return []


def _sqlite(alias: str, given: Mapping[str, Any]) -> list[CheckMessage]:
    options = given.get("OPTIONS") or {}
    found: list[CheckMessage] = []
    if str(options.get("transaction_mode") or "").upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        found.append(
            Warning(
                f"Transactions of the SQLite database {alias!r} begin without its lock, and fail with "
                "'database is locked' where they read first and then write.",
                hint="Set 'transaction_mode': 'IMMEDIATE' in its OPTIONS.",
                id="durable_streams.W006",
            )
        )
    if _WAL.search(str(options.get("init_command") or "")) is None and not _is_in_wal(given):
        found.append(
            Warning(
                f"Readers and the writer of the SQLite database {alias!r} wait for each other.",
                hint="Set 'init_command': 'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;' in its OPTIONS.",
                id="durable_streams.W007",
            )
        )
    return found


def _is_in_wal(given: Mapping[str, Any]) -> bool:
    """Whether the file says so itself, as WAL outlives connections. For a database in memory it means nothing."""
    name = str(given.get("NAME") or "")
    if not name or ":memory:" in name or "mode=memory" in name:
        return True
    try:
        with Path(name).open("rb") as file:
            return file.read(20)[18:20] == b"\x02\x02"
    except OSError:
        return False
