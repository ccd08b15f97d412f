"""The settings of the service's own database connections: the project's, but for those that would break the service.

A project sets up its connections for its views. The service's threads acknowledge what they have committed, share
commits between requests and wait for locks within bounds, so whatever decides on these is set here, for every vendor.
What says where the database is, who asks, and what it looks like from there (host, user, TLS, roles, schemas, character
sets) is the project's, and so is whether the connection may write: a read-only one is refused with words of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

CONNECT_SECONDS = 2
"""How long connecting may take. It is the least that PostgreSQL's client library can do."""

_ALWAYS: Mapping[str, Any] = {
    "AUTOCOMMIT": True,  # otherwise nothing that is acknowledged is ever committed
    "ATOMIC_REQUESTS": False,
    "CONN_MAX_AGE": None,  # a dedicated connection is closed by its thread only
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
"""Parameters that a project may give to its sessions by OPTIONS['options'], and what they are in the service's."""


def service_settings(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    """Return what the settings of a project's connection are for a dedicated one. The project's stay as they are."""
    options: dict[str, Any] = {**connection.settings_dict["OPTIONS"]}
    adapt = _OPTIONS.get(connection.vendor)
    if adapt is not None:
        adapt(options)
    return {**connection.settings_dict, **_ALWAYS, "OPTIONS": options}


def _postgresql(options: dict[str, Any]) -> None:
    from psycopg import IsolationLevel

    # Threads that live as long as the process would only keep the connections of a pool from others.
    options.pop("pool", None)
    options["connect_timeout"] = _connect_seconds(options)
    # What a batch has locked it must see as it is, and not as it was when the transaction began.
    options["isolation_level"] = IsolationLevel.READ_COMMITTED
    options["server_side_binding"] = False
    session = options.get("options")
    if session:
        # The last value of a parameter counts. Those that are not there are left out: not every pooler takes them.
        changed = [
            f"-c {name}={value}"
            for name, value in _POSTGRESQL_SESSION.items()
            if re.search(rf"\b{name}\b", str(session), re.IGNORECASE)
        ]
        options["options"] = " ".join([str(session), *changed])


def _mysql(options: dict[str, Any]) -> None:
    options["connect_timeout"] = _connect_seconds(options)
    options["isolation_level"] = "read committed"
    # The monitor ends connections that are silent for too long; a wait for a lock must not look like one.
    options.pop("read_timeout", None)
    options.pop("write_timeout", None)


def _sqlite(options: dict[str, Any]) -> None:
    # Whoever begins a transaction here writes in it. To take the lock later may fail half-way.
    options["transaction_mode"] = "IMMEDIATE"


_OPTIONS: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "sqlite": _sqlite,
}


def _connect_seconds(options: Mapping[str, Any]) -> int:
    try:
        wanted = int(options.get("connect_timeout", 0))
    except (TypeError, ValueError):
        wanted = 0
    return min(CONNECT_SECONDS, wanted or CONNECT_SECONDS)
