"""Columns with the same meaning on every database and with all settings: exact text, times, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from .. import clock

if TYPE_CHECKING:
    _CharField = models.CharField[Any, Any]
    _Field = models.Field[Any, Any]
else:
    _CharField = models.CharField
    _Field = models.Field


class ExactCharField(_CharField):
    """A CharField compared code point by code point.

    MySQL and MariaDB ignore case by default, and pad text with spaces. Two streams whose paths differ only in these
    would be one. PostgreSQL compares by the rules of a language, which takes longer. Its index then does not serve
    searches by prefix, and Django makes a second one for these. On SQLite this is a plain CharField.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        kind = super().db_type(connection)
        if connection.vendor == "mysql" and kind is not None:
            collation = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"  # type: ignore[attr-defined]
            return f"{kind} CHARACTER SET utf8mb4 COLLATE {collation}"
        if connection.vendor == "postgresql":
            # The long name: with an index on a `varchar`, Django makes another index for prefixes.
            return f'character varying({self.max_length}) COLLATE "C"'
        return kind

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _, args, kwargs = super().deconstruct()
        return name, "django_durable_streams.models.fields.ExactCharField", args, kwargs


class InstantField(_Field):
    """A time, stored in microseconds since 1970 in UTC. In Python it is a datetime, aware with `USE_TZ`, else naive.

    The values of Django's DateTimeField depend on `USE_TZ`, `TIME_ZONE` and the connection's time zone. When clocks are
    set back a local time is ambiguous, and streams would end an hour early or late. Queries compare the field with
    aware and naive datetimes, and sort by it. For `__date` or `TruncDay`, use `created_at` and `appended_at`.
    """

    description = _("Moment")

    def get_internal_type(self) -> str:
        return "BigIntegerField"

    def from_db_value(self, value: int | None, expression: object, connection: BaseDatabaseWrapper) -> datetime | None:
        """Return the stored value as a datetime of the project."""
        return None if value is None else clock.to_project(clock.from_microseconds(value))

    def to_python(self, value: Any) -> datetime | None:
        """Return a datetime for a value of a form or a fixture.

        Raises:
            ValidationError: the value is no datetime.
        """
        moment: datetime | None = models.DateTimeField().to_python(value)
        return moment

    def get_prep_value(self, value: Any) -> Any:
        """Return the integer that a query compares with or stores."""
        moment = self.to_python(super().get_prep_value(value))
        return None if moment is None else clock.to_microseconds(clock.from_project(moment))

    def value_to_string(self, obj: models.Model) -> str:
        """Return the value for a fixture."""
        value: datetime | None = self.value_from_object(obj)
        return "" if value is None else clock.from_project(value).isoformat()

    def formfield(self, *args: Any, **kwargs: Any) -> forms.Field | None:
        """Return a field for a datetime."""
        return super().formfield(*args, **{"form_class": forms.DateTimeField, **kwargs})


class JSONTextField(_Field):
    """A JSON value, stored as text in ASCII. Queries do not look into it.

    With Django's JSONField, PostgreSQL refuses the character NUL and MariaDB deep nesting. Users may send both. No
    database takes `Infinity`, and PostgreSQL sorts the keys.
    """

    def get_internal_type(self) -> str:
        return "TextField"

    def from_db_value(self, value: str | None, expression: object, connection: BaseDatabaseWrapper) -> Any:
        """Return the value of the stored text."""
        return None if value is None else json.loads(value)

    def to_python(self, value: Any) -> Any:
        """Return the value of the text of a form or a fixture. Other values are what they are.

        Raises:
            ValidationError: the text is no JSON.
        """
        return forms.JSONField().to_python(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> Any:
        """Return the text to store."""
        return None if value is None else json.dumps(super().get_prep_value(value))

    def value_to_string(self, obj: models.Model) -> str:
        """Return the value for a fixture."""
        return json.dumps(self.value_from_object(obj))
