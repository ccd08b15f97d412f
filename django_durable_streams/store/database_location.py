"""Where a database is: text that differs between a database and its copy, whose rows are the same.

All processes that use one database get the same text, whatever leads them to it: a pooler, another address, another
name of a file. So the database answers, not the settings.

- PostgreSQL: the system identifier of the cluster, the number of the database, and that of a table, because one
  database may have copies of a schema. A promoted standby has the same three.
- MariaDB and MySQL: the server, and the name of the database. A promoted replica is another server. So are the nodes of
  a cluster: one may not have yet what a message of another one tells.
- SQLite: the running system, the device, and the file on it. All processes of a file in WAL mode share a system.
  Containers of a host do, too, unless they hide it. A database in memory belongs to one process.

Where processes of one database get different texts, they only poll. So a text differs rather than not.

A copy of all files of a PostgreSQL or MySQL server may have the same location. The start of the server tells copies of
PostgreSQL apart. It changes with each restart, of which a process behind a pooler does not learn at once.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from django.db import NotSupportedError, ProgrammingError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models.identity import DatabaseIdentity

_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Of Linux. It differs between machines that were made from one image. Containers of Docker, Podman and Kubernetes have
that of their host. LXC and systemd-nspawn give each container one of its own. systemd's `ProcSubset=pid` hides it."""

_MEMORY = secrets.token_hex(8)

_MYSQL_VARIABLES = ("hostname", "port", "server_uid", "server_uuid")
"""MariaDB has the uid, made of port and network address. MySQL has the uuid. Containers may have the same address."""


def location(using: str) -> str:
    """Return the location of a database. Uses this thread's connection, outside of a transaction.

    Raises:
        django.db.Error: the database does not answer, or is not migrated.
    """
    connection = connections[using]
    find = _LOCATIONS.get(connection.vendor)
    return "" if find is None else f"{connection.vendor} {find(connection)}"


def server_start(using: str) -> str:
    """Return when the server of a database was started, or nothing if it does not tell.

    Raises:
        django.db.Error: the database does not answer.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return ""
    return _ask(connection, "extract(epoch FROM pg_catalog.pg_postmaster_start_time())")


def _postgresql(connection: BaseDatabaseWrapper) -> str:
    table = connection.ops.quote_name(DatabaseIdentity._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT database.oid, identity.tableoid "
            f"FROM pg_catalog.pg_database AS database, {table} AS identity WHERE datname = current_database()"
        )
        numbers = cursor.fetchone()
    cluster = _ask(connection, "system_identifier FROM pg_catalog.pg_control_system()")
    return f"{cluster} {numbers}"


def _ask(connection: BaseDatabaseWrapper, expression: str) -> str:
    """Return a value of PostgreSQL, or nothing where the role may not ask for it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {expression}")
            (value,) = cursor.fetchone()
    except (ProgrammingError, NotSupportedError):  # no right, or a service that lacks the function
        return ""
    return str(value)


def _mysql(connection: BaseDatabaseWrapper) -> str:
    names = ", ".join(f"'{name}'" for name in _MYSQL_VARIABLES)
    # Proxies may send reads to a replica, unless they are in a transaction.
    with transaction.atomic(connection.alias), connection.cursor() as cursor:
        cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
        values = sorted(cursor.fetchall())
        cursor.execute("SELECT DATABASE()")
        (name,) = cursor.fetchone()
    return f"{values} {name}"


def _sqlite(connection: BaseDatabaseWrapper) -> str:
    with connection.cursor() as cursor:
        # As bytes: the name of a file need not be text.
        cursor.execute("SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'")
        (file,) = cursor.fetchone()
    try:
        status = os.stat(bytes(file))
    except OSError:  # it has no file
        return f"memory {_MEMORY} {os.getpid()}"
    return f"{_boot()} {status.st_dev} {status.st_ino}"


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # not Linux
        return ""


_LOCATIONS: Mapping[str, Callable[[BaseDatabaseWrapper], str]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "sqlite": _sqlite,
}
