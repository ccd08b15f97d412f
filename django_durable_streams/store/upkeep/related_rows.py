"""Rows of a project's own models that refer to streams, when these are deleted from Python.

What becomes of them is for `on_delete` to say, as with every model of Django. This app's own rows are none of it: the
protocol has its rules for forks, and the housekeeper deletes what is left of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector, get_candidate_relations_to_delete

from ...models import Stream


def follow(streams: Sequence[Model], using: str) -> dict[str, int]:
    """Delete, change or protect what refers to streams that are about to be deleted, as its `on_delete` says.

    Returns how many rows were deleted, by the label of their model. To be called in a transaction.

    Raises:
        ProtectedError, RestrictedError: there is a row that forbids it.
    """
    if not are_there():
        return {}
    collector = OthersCollector(using=using)
    collector.collect(streams)
    # The streams themselves are not deleted as rows are.
    for model in [model for model in collector.data if issubclass(model, Stream)]:
        del collector.data[model]
    _, counts = collector.delete()
    return counts


def are_there() -> bool:
    """Whether the project has a model that refers to streams."""
    return any(not _is_own(relation.related_model) for relation in get_candidate_relations_to_delete(Stream._meta))  # type: ignore[arg-type]


def _is_own(model: Any) -> bool:
    return bool(model._meta.app_label == Stream._meta.app_label)


class OthersCollector(Collector):
    """Django's collector, which sees the models of other apps only."""

    def related_objects(self, related_model: type[Model], *args: Any) -> QuerySet[Model]:
        found: QuerySet[Model] = super().related_objects(related_model, *args)
        # Plain ones, as the collector deletes also where there is nothing.
        return QuerySet(related_model).none() if _is_own(related_model) else found
