"""Rows of a project's own models that refer to streams, at the deletion of these streams from Python.

Their `on_delete` decides, as for every Django model. The rows of this app are left out: the protocol has rules for
forks, and housekeeping deletes the other rows of a removed stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector, get_candidate_relations_to_delete

from ...models import Stream


def follow(streams: Sequence[Model], using: str) -> dict[str, int]:
    """Delete or change the rows that refer to streams, as their `on_delete` says. Called in a transaction.

    Args:
        streams: the streams that are deleted next.
        using: alias of the database.

    Returns:
        The number of deleted rows by the label of their model.

    Raises:
        ProtectedError, RestrictedError: a row forbids the deletion.
    """
    if not are_there():
        return {}
    collector = OthersCollector(using=using)
    collector.collect(streams)
    # The streams are removed in another way: their rows stay until the purge.
    for model in [model for model in collector.data if issubclass(model, Stream)]:
        del collector.data[model]
    _, counts = collector.delete()
    return counts


def are_there() -> bool:
    """Return whether the project has a model that refers to streams."""
    return any(not _is_own(relation.related_model) for relation in get_candidate_relations_to_delete(Stream._meta))  # type: ignore[arg-type]


def refer_to(streams: QuerySet[Stream], using: str) -> bool:
    """Return whether a row refers to one of some streams: one short query for each model.

    `follow` needs the streams as objects, which takes longer than the deletion of their rows.
    """
    relations: Any = get_candidate_relations_to_delete(Stream._meta)  # type: ignore[arg-type]
    return any(
        QuerySet(relation.related_model, using=using).filter(**{f"{relation.field.name}__in": streams}).exists()
        for relation in relations
        if not _is_own(relation.related_model)
    )


def _is_own(model: Any) -> bool:
    return bool(model._meta.app_label == Stream._meta.app_label)


class OthersCollector(Collector):
    """Django's collector of related rows, without the rows of this app."""

    def related_objects(self, related_model: type[Model], *args: Any) -> QuerySet[Model]:
        if _is_own(related_model):
            # A plain queryset: the collector also deletes empty ones, and those of this app's models refuse that.
            return QuerySet(related_model, using=self.using).none()
        related: QuerySet[Model] = super().related_objects(related_model, *args)
        return related
