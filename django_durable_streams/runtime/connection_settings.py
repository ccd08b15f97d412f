"""Settings of dedicated connections: the project's settings, without those that would break the service.

A project sets up its connections for its views. The service's threads acknowledge commits, share commits between
requests, and wait for locks for a limited time. This module sets all options that decide on these, for each vendor. The
project decides on host, user, TLS, roles, schemas and character sets. It also decides whether the connection may write:
the service refuses requests on a read-only connection with its own message (`configuration_errors`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .drivers import require_psycopg

CONNECT_SECONDS = 2
"""Limit for connecting. PostgreSQL's client library knows no shorter one."""

_ALWAYS: Mapping[str, Any] = {
    "AUTOCOMMIT": True,  # otherwise acknowledged data is never committed
    "ATOMIC_REQUESTS": False,
    "CONN_MAX_AGE": None,  # only its thread closes a dedicated connection
    "CONN_HEALTH_CHECKS": False,
}

_POSTGRESQL_SESSION = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_deferrable": "off",
}
"""Parameters that a project may set for its sessions in OPTIONS['options'], with their values for the service."""


def service_settings(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return the settings of a dedicated connection, made from those of a project's connection, which do not change."""
    options: dict[str, Any] = {**connection.settings_dict["OPTIONS"]}
    adapt = _OPTIONS.get(connection.vendor)
    if adapt is not None:
        adapt(options)
    return {**connection.settings_dict, **_ALWAYS, "OPTIONS": options}


def _postgresql(options: dict[str, Any]) -> None:
    require_psycopg()
    from psycopg import IsolationLevel

    # Threads that live as long as the process would only take connections of a pool from other code.
    options.pop("pool", None)
    options["connect_timeout"] = _connect_seconds(options)
    # A batch must see the present state of the rows that it locks, not their state when the transaction began.
    options["isolation_level"] = IsolationLevel.READ_COMMITTED
    options["server_side_binding"] = False
    session = options.get("options")
    if session:
        # The last value of a parameter counts. Only parameters of the project are set: some poolers accept no others.
        changed = [
            f"-c {name}={value}"
            for name, value in _POSTGRESQL_SESSION.items()
            if re.search(rf"\b{name}\b", str(session), re.IGNORECASE)
        ]
        options["options"] = " ".join([str(session), *changed])


def _mysql(options: dict[str, Any]) -> None:
    options["connect_timeout"] = _connect_seconds(options)
    options["isolation_level"] = "read committed"
    # The monitor cuts connections without an answer. A wait for a lock must not look like one.
    options.pop("read_timeout", None)
    options.pop("write_timeout", None)


_SQLITE_DELETION = "PRAGMA secure_delete = FAST"
"""Debian, Ubuntu and macOS build SQLite so that it fills the pages of deleted data with zeros. The purge of a stream
then writes as much as its appends did, and later appends wait for it: 60 ms for 14 MB, instead of 5 without the zeros.
"""


def _sqlite(options: dict[str, Any]) -> None:
    # Every transaction of the service writes. Taking the lock later may fail in the middle.
    options["transaction_mode"] = "IMMEDIATE"
    # First, so that a project's own secure_delete holds.
    options["init_command"] = "; ".join(filter(None, [_SQLITE_DELETION, options.get("init_command")]))


_OPTIONS: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "sqlite": _sqlite,
}


def _connect_seconds(options: Mapping[str, Any]) -> int:
    try:
        seconds = int(options.get("connect_timeout", 0))
    except (TypeError, ValueError):
        seconds = 0
    return min(CONNECT_SECONDS, seconds or CONNECT_SECONDS)
