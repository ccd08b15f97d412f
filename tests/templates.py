"""Migrated databases for servers, each a copy of one that is migrated once in a test run."""

import contextlib
import functools
import secrets
import shutil
import sqlite3
from pathlib import Path

from tests.servers import example_environment, migrate, migrated_sqlite_file
from tests.services import Database, name_of

IDENTIFY = "UPDATE durable_streams_databaseidentity SET value = '{}'"
"""Copies of a database have its identity, and believe each other's wake-up messages."""


def migrated_database(database: Database) -> str:
    """Make a database with the example project's tables and an identity of its own. Returns its URL."""
    copy = database.new_copy(_template(database))
    with contextlib.closing(database.connect(name_of(copy))) as connection:
        connection.cursor().execute(IDENTIFY.format(secrets.token_hex(16)))
    return copy


def migrated_file(path: Path) -> str:
    """Make a SQLite database with the example project's tables and an identity of its own. Returns its URL."""
    shutil.copyfile(migrated_sqlite_file(), path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(IDENTIFY.format(secrets.token_hex(16)))
    return f"sqlite:///{path}"


@functools.cache
def _template(database: Database) -> str:
    url = database.new_database()
    migrate(example_environment({"DATABASE_URL": url}))
    return url
