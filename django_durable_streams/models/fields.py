"""A text column that tells every two different values apart, on every database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    _CharField = models.CharField[Any, Any]
else:
    _CharField = models.CharField


class ExactCharField(_CharField):
    """A CharField compared code point by code point.

    MySQL and MariaDB compare text without case by default, and pad it with spaces, so that two streams whose paths
    differ in one of these would be one. PostgreSQL compares as a language sorts, which takes longer, and its index then
    does not lead to what begins with a prefix: Django makes a second one for that. On SQLite this is a plain CharField.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        kind = super().db_type(connection)
        if connection.vendor == "mysql" and kind is not None:
            collation = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"  # type: ignore[attr-defined]
            return f"{kind} CHARACTER SET utf8mb4 COLLATE {collation}"
        if connection.vendor == "postgresql":
            # By its long name: next to an index on a `varchar`, Django makes another one for prefixes.
            return f'character varying({self.max_length}) COLLATE "C"'
        return kind

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _, args, kwargs = super().deconstruct()
        return name, "django_durable_streams.models.fields.ExactCharField", args, kwargs
