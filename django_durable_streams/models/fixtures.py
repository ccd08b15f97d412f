"""Rows that refer to streams, in fixtures: they name a stream by its path.

A number of a stream is valid in one database only. An import of streams gives other numbers, and no constraint notices
that a row then refers to nothing, or to another stream. So `dumpdata --natural-foreign` writes paths, and `loaddata`
takes nothing else. This holds for every model that refers to streams, also in the project.

`StreamKey` refuses each number that Django reads from a fixture. For rows with a foreign key of their own, this module
does it before, with the names of the row and the field. It also checks generic foreign keys: `StreamKey` does not read
their numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.serializers.base import DeserializationError
from django.db.models import Field, ForeignKey, Model
from django.db.models.signals import pre_save

from .guard import GuardedModel
from .natural_keys import BY_NUMBER, DUMP_AGAIN, IMPORT_FIRST, KeyOfPath, StreamKey


@cache
def _keys(model: type[Model]) -> tuple[Field[Any, Any], ...]:
    """Return the fields of a model with the number of a stream."""
    concrete: Any = model._meta.concrete_model
    keys = [field for field in concrete._meta.local_concrete_fields if isinstance(field, ForeignKey)]
    return tuple(key for key in keys if isinstance(key.target_field, StreamKey))


def _check_row(sender: type[Model], instance: Model, raw: bool, using: str, **kwargs: Any) -> None:
    """Refuse a row of a fixture that names its stream by a number, or none where it has to."""
    if not raw or issubclass(sender, GuardedModel):
        return
    row = f"{sender._meta.label} {instance.pk}"
    for field in _keys(sender):
        number = getattr(instance, field.attname)
        if number is None and not field.null:
            raise DeserializationError(f"{field.name!r} of {row} names a stream that is not here. {IMPORT_FIRST}")
        if number is not None and not isinstance(number, KeyOfPath):
            hint = _SCRIPT.format("primary key") if field.primary_key else DUMP_AGAIN
            raise DeserializationError(f"{field.name!r} of {row} {BY_NUMBER.format(number)} {hint}")
    for name, number in _generic_numbers(instance, using):
        hint = _SCRIPT.format("reference")
        raise DeserializationError(f"{name!r} of {row} {BY_NUMBER.format(number)} {hint}")


def _generic_numbers(instance: Model, using: str) -> list[tuple[str, Any]]:
    """Return the generic foreign keys of a row that refer to a stream, with its number."""
    result = []
    fields: list[Any] = instance._meta.private_fields
    for field in fields:
        if not hasattr(field, "ct_field"):  # only a GenericForeignKey has it; its app may not be installed
            continue
        number = getattr(instance, field.fk_field)
        kind: Any = instance._meta.get_field(field.ct_field)
        type_id = getattr(instance, kind.attname)
        if number is not None and type_id is not None:
            try:
                model = field.get_content_type(id=type_id, using=using).model_class()
            except ObjectDoesNotExist:  # the fixture may have it below
                continue
            if model is not None and _is_number(model._meta.pk):
                result.append((field.name, number))
    return result


def _is_number(field: Any) -> bool:
    """Return whether the values of a field are numbers of streams."""
    while isinstance(field, ForeignKey):
        field = field.target_field
    return isinstance(field, StreamKey)


_SCRIPT = "A fixture cannot have this {}. Copy these rows by a script that finds streams by their paths."

pre_save.connect(_check_row, dispatch_uid="durable_streams.fixtures")
