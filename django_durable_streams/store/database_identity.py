"""The identity of a database: created by the migration, and part of the key that signs wake-up messages."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models.signals import post_migrate

from ..models.identity import DatabaseIdentity, new_identity


def identity(using: str) -> str:
    """Return the identity of a database. Creates one if the database has none yet.

    The row has a fixed key, so several processes that create one at the same time agree. Uses this thread's connection.

    Raises:
        django.db.Error: the database does not answer, or is not migrated.
    """
    row, _ = DatabaseIdentity.objects.using(using).get_or_create(id=DatabaseIdentity.THE_ONE)
    return row.value


def renew_identity(using: str) -> str:
    """Give a database another identity, and return it. For a copy: it has that of its original.

    Processes that run keep the identity that they have read. Uses this thread's connection.

    Raises:
        django.db.Error: the database does not answer, or is not migrated.
    """
    row, _ = DatabaseIdentity.objects.using(using).update_or_create(
        id=DatabaseIdentity.THE_ONE, defaults={"value": new_identity()}
    )
    return row.value


def create_after_migrate(app_config: Any) -> None:
    """Create the identity of a database after each migration, and after each flush of a test database."""
    post_migrate.connect(_create, sender=app_config, dispatch_uid="durable_streams.identity")


def _create(using: str, apps: Any = None, **kwargs: Any) -> None:
    # Skips databases for which the router does not allow the table, and migrations back to before the table.
    has_table = apps is None or DatabaseIdentity._meta.model_name in apps.all_models[DatabaseIdentity._meta.app_label]
    if has_table and router.allow_migrate_model(using, DatabaseIdentity):
        identity(using)
