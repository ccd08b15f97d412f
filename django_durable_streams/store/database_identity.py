"""The identity of a database: made when it is migrated, and read by whoever has to tell it from others."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models.signals import post_migrate

from ..models.identity import DatabaseIdentity


def identity(using: str) -> str:
    """Return the identity of a database, and give it one if it has none yet, over this thread's connection.

    Several processes that find none at the same time agree on one: the row has a fixed key.

    Raises:
        django.db.Error: the database does not answer, or was not migrated.
    """
    found, _ = DatabaseIdentity.objects.using(using).get_or_create(id=DatabaseIdentity.THE_ONE)
    return found.value


def create_after_migrate(app_config: Any) -> None:
    """Have a database given its identity whenever it is migrated or, as test databases are, flushed."""
    post_migrate.connect(_create, sender=app_config, dispatch_uid="durable_streams.identity")


def _create(using: str, apps: Any = None, **kwargs: Any) -> None:
    # Not where the router sends the tables elsewhere, nor on the way back to before there was the table.
    known = apps is None or DatabaseIdentity._meta.model_name in apps.all_models[DatabaseIdentity._meta.app_label]
    if known and router.allow_migrate_model(using, DatabaseIdentity):
        identity(using)
