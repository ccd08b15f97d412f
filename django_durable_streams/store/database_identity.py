"""The identity of a database: created by the migration, and part of the key that signs wake-up messages.

A copy has the row of its original, so wake-up messages depend on the location of the database as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from django.db import router
from django.db.models.signals import post_migrate

from ..models.identity import DatabaseIdentity, new_identity
from .database_location import location, server_start


def identity(using: str) -> str:
    """Return the identity of a database. Creates one if the database has none yet.

    The row has a fixed key, so several processes that create one at the same time agree. Uses this thread's connection.

    Raises:
        django.db.Error: the database does not answer, or is not migrated.
    """
    row, _ = DatabaseIdentity.objects.using(using).get_or_create(id=DatabaseIdentity.THE_ONE)
    return row.value


class LocatedIdentity(NamedTuple):
    """The identity of a database, and what tells the database from its copies."""

    name: str
    """The identity with the location. Copies have other ones, but for copies of all files of a server."""
    server_start: str
    """When the server was started, if it tells. Copies of all files have other ones."""


def renew_identity(using: str) -> None:
    """Give a database another identity. A copy has the identity of its original.

    Processes that run read it again now and then (`engine.wakeup.signing`). Uses this thread's connection.

    Raises:
        django.db.Error: the database does not answer, or is not migrated.
    """
    DatabaseIdentity.objects.using(using).update_or_create(
        id=DatabaseIdentity.THE_ONE, defaults={"value": new_identity()}
    )


def located_identity(using: str) -> LocatedIdentity:
    """Return the identity of a database, with its location. Uses this thread's connection, outside of a transaction.

    Raises:
        django.db.Error: the database does not answer, or is not migrated.
    """
    return LocatedIdentity(f"{identity(using)} {location(using)}", server_start(using))


def create_after_migrate(app_config: Any) -> None:
    """Create the identity of a database after each migration, and after each flush of a test database."""
    post_migrate.connect(_create, sender=app_config, dispatch_uid="durable_streams.identity")


def _create(using: str, apps: Any = None, **kwargs: Any) -> None:
    # Skips databases for which the router does not allow the table, and migrations back to before the table.
    has_table = apps is None or DatabaseIdentity._meta.model_name in apps.all_models[DatabaseIdentity._meta.app_label]
    if has_table and router.allow_migrate_model(using, DatabaseIdentity):
        identity(using)
