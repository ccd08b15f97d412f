"""Rows that refer to streams, in fixtures: they name a stream by its path.

A number of a stream is valid in one database only. An import of streams gives other numbers, and no constraint notices
that a row then refers to nothing, or to another stream. So `dumpdata --natural-foreign` writes paths, and `loaddata`
takes nothing else. This holds for every model with a foreign key to streams, also in the project.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.core.serializers.base import DeserializationError
from django.db.models import Field, ForeignKey, Model
from django.db.models.signals import pre_save

from .guard import GuardedModel
from .natural_keys import IMPORT_FIRST, KeyOfPath
from .stream import Stream


@cache
def _keys(model: type[Model]) -> tuple[Field[Any, Any], ...]:
    """Return the fields of a model with the number of a stream."""
    return tuple(
        field
        for field in model._meta.local_concrete_fields
        if isinstance(field, ForeignKey) and issubclass(field.related_model, Stream) and field.target_field.primary_key
    )


def _check_row(sender: type[Model], instance: Model, raw: bool, **kwargs: Any) -> None:
    """Refuse a row of a fixture that names its stream by a number, or none where it has to."""
    if not raw or issubclass(sender, GuardedModel):
        return
    for field in _keys(sender):
        number = getattr(instance, field.attname)
        row = f"{sender._meta.label} {instance.pk}"
        if number is None and not field.null:
            raise DeserializationError(f"{field.name!r} of {row} names a stream that is not here. {IMPORT_FIRST}")
        if number is not None and not isinstance(number, KeyOfPath):
            raise DeserializationError(
                f"{field.name!r} of {row} names a stream by its number ({number}), which is another stream's in "
                f"another database. {_PRIMARY if field.primary_key else _DUMP}"
            )


_DUMP = "Dump the rows again, with their paths: `manage.py dumpdata --natural-foreign`."
_PRIMARY = "A fixture cannot have this primary key. Copy these rows by a script that finds streams by their paths."

pre_save.connect(_check_row, dispatch_uid="durable_streams.fixtures")
