"""Models of a project that refer to streams, made for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connection, models

LABEL = "sessions"
"""An app that is installed, which the models pass for parts of."""

Make = Callable[..., Any]
"""Makes a model. The plugin for types does not know models that are made while tests run."""


@contextmanager
def referring_models() -> Iterator[Make]:
    """Yield a function that makes a model with a foreign key to streams. They are gone in the end."""
    from django_durable_streams.models import Stream

    made: list[type[models.Model]] = []

    def make(
        name: str,
        on_delete: Callable[..., None],
        *,
        base: type[models.Model] = models.Model,
        **more: models.Field[Any, Any],
    ) -> type[models.Model]:
        meta = type("Meta", (), {"app_label": LABEL})
        fields = {"stream": models.ForeignKey(Stream, on_delete, null=True, related_name="+"), **more}
        if base is not models.Model:
            del fields["stream"]  # the base has it
        result = type(name, (base,), {"Meta": meta, "__module__": __name__, **fields})
        with connection.schema_editor() as editor:
            editor.create_model(result)
        made.append(result)
        return result

    yield make
    for result in reversed(made):
        with connection.schema_editor() as editor:
            editor.delete_model(result)
        tables: list[Any] = [result, *(field.remote_field.through for field in result._meta.local_many_to_many)]
        for model in tables:
            apps.all_models[LABEL].pop(model.__name__.lower(), None)  # a table between may be one of the models made
    apps.clear_cache()
