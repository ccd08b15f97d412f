"""Migrated databases for servers, each a copy of one that is migrated once in a test run."""

import contextlib
import secrets
import shutil
import sqlite3
from pathlib import Path

from tests.servers import example_environment, migrate, migrated_sqlite_file
from tests.services import Database, name_of

TEMPLATE = "streams_template"
"""The migrated database that each server of a test has from the beginning."""

IDENTIFY = "UPDATE durable_streams_databaseidentity SET value = '{}'"
"""Copies of a database have its identity, and believe each other's wake-up messages."""


def migrated_database(database: Database) -> str:
    """Make a database with the example project's tables and an identity of its own. Returns its URL."""
    copy = database.new_copy(f"{database.url}/{TEMPLATE}")
    with contextlib.closing(database.connect(name_of(copy))) as connection:
        connection.cursor().execute(IDENTIFY.format(secrets.token_hex(16)))
    return copy


def migrated_file(path: Path) -> str:
    """Make a SQLite database with the example project's tables and an identity of its own. Returns its URL."""
    shutil.copyfile(migrated_sqlite_file(), path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(IDENTIFY.format(secrets.token_hex(16)))
    return f"sqlite:///{path}"


def _make_template(database: Database) -> None:
    migrate(example_environment({"DATABASE_URL": database.new_database(TEMPLATE)}))


Database.prepare = _make_template
