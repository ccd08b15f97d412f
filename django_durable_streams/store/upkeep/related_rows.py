"""Rows of a project's own models that refer to streams, at the deletion of these streams from Python.

Their `on_delete` decides, as for every Django model. The rows of this app are left out: the protocol has rules for
forks, and housekeeping deletes the other rows of a removed stream.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

from django.apps import apps
from django.db import IntegrityError
from django.db.models import CASCADE, PROTECT, Model, ProtectedError, Q, QuerySet, RestrictedError
from django.db.models.deletion import Collector, get_candidate_relations_to_delete

from ...models import Stream
from ..sql.ids import has_id

Protected = Mapping[int, frozenset[str]]
"""The ids of streams that rows of the project keep, with the labels of the models of these rows.

There is no label where only the database refuses, such as for a table that no model has."""

MAX_STREAMS, MAX_ROWS = 5_000, 20_000
"""How many streams, and rows that refer to them, a `Preview` looks at."""


class RowCounts(NamedTuple):
    """The numbers of rows of the project, by the labels of their models, at the deletion of streams.

    Rows of the automatic table of a many-to-many field have the label of the field, such as `rooms.Room.members`.
    """

    deleted: Counter[str]
    changed: Counter[str]
    """Rows that stay and are changed, as by `SET_NULL`."""

    def add(self, deleted: Iterable[tuple[str, int]], changed: Iterable[tuple[str, int]]) -> None:
        """Add some rows, by the labels of their tables' models."""
        for counts, numbers in ((self.deleted, deleted), (self.changed, changed)):
            for label, number in numbers:
                if number:
                    counts[_shown(label)] += number


def _shown(label: str) -> str:
    """Return the label of a model or, of an automatic model, that of its many-to-many field."""
    model: Any = apps.get_model(label)
    owner = model._meta.auto_created
    if not owner:
        return label
    fields = owner._meta.local_many_to_many
    return next((str(field) for field in fields if field.remote_field.through is model), label)


_counts: ContextVar[RowCounts | None] = ContextVar("durable_streams_related_rows", default=None)

_followed: ContextVar[frozenset[tuple[str, int]]] = ContextVar("durable_streams_followed", default=frozenset())
"""The aliases of the databases and the ids of the streams whose rows are deleted right now."""


@contextmanager
def counting() -> Iterator[RowCounts]:
    """Count the rows that `follow` deletes and changes in this block."""
    counts = RowCounts(Counter(), Counter())
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)


@contextmanager
def counted_if_kept() -> Iterator[None]:
    """Take back the counts of a block that fails: its transaction is rolled back. To be entered before it."""
    total = _counts.get()
    before = RowCounts(*map(Counter, total)) if total is not None else None
    try:
        yield
    except BaseException:
        if total is not None and before is not None:
            for counts, earlier in zip(total, before, strict=True):
                counts.clear()
                counts.update(earlier)
        raise


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
    collector = _collected(streams, using)
    total = _counts.get()
    changed = []
    if total is not None:
        changed = [(label, reduce(or_, rows.values()).count()) for label, rows in _changed(collector)]
    token = _followed.set(_followed.get() | {(using, stream.pk) for stream in streams})
    try:
        _, counts = collector.delete()
    finally:
        _followed.reset(token)
    if total is not None:
        total.add(counts.items(), changed)
    return counts


def is_followed(stream_id: int | None, using: str) -> bool:
    """Return whether rows follow a stream right now: a receiver of the project asks, for one of these rows."""
    return (using, stream_id) in _followed.get()


def protecting(error: IntegrityError) -> frozenset[str]:
    """Return the labels of the models whose rows have forbidden a deletion. None where only the database refuses."""
    name = "restricted_objects" if isinstance(error, RestrictedError) else "protected_objects"
    rows: Iterable[Model] = getattr(error, name, ())
    return frozenset(row._meta.label for row in rows)


class Preview:
    """Counts the rows that would follow streams, without a change. `MAX_STREAMS` and `MAX_ROWS` bound the work.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self.protected: dict[int, frozenset[str]] = {}
        """The ids of streams whose deletion is forbidden, with the labels of the models whose rows forbid it."""
        self.is_complete = True
        """Whether the bounds have left out no stream and no row."""
        self._using = using
        self._seen = 0
        self._deleted: dict[str, set[Any]] = defaultdict(set)
        """The primary keys of rows that would be deleted: several ways may lead to a row."""
        self._changed_keys: dict[tuple[str, str], set[Any]] = defaultdict(set)
        """The primary keys of rows whose foreign key would be changed, by the labels of their models and its name."""
        self._changed: Counter[str] = Counter()

    @property
    def rows(self) -> RowCounts:
        """The rows of streams that no row protects."""
        result = RowCounts(Counter(), Counter())
        result.add(((label, len(keys)) for label, keys in self._deleted.items()), self._changed.items())
        return result

    def look(self, portions: Iterable[Sequence[int]]) -> int:
        """Look at streams, ids portion by portion, and return how many of them are protected."""
        before = len(self.protected)
        for ids in portions if are_there() else ():
            self.is_complete = self.is_complete and self._seen < MAX_STREAMS
            if not self.is_complete:
                break
            self._seen += len(ids)
            # One query for a model finds the streams that its rows protect. The collector would need one for a stream.
            self.protected |= _protected(ids, self._using)
            self.is_complete = self._count([pk for pk in ids if pk not in self.protected])
        return len(self.protected) - before

    def _count(self, ids: Sequence[int]) -> bool:
        """Count the rows that would follow some streams, and return whether there are not too many."""
        if not ids:
            return True
        if sum(map(len, self._deleted.values())) + self._changed.total() >= MAX_ROWS:
            return False
        streams = Stream.objects.using(self._using).filter(has_id("id", ids, self._using))
        number = sum(rows[: MAX_ROWS + 1].count() for _, rows in _referring(streams, self._using))
        if number > MAX_ROWS and len(ids) == 1:
            return False
        try:
            collector = _collected(list(streams.defer("lineage")), self._using) if 0 < number <= MAX_ROWS else None
        except (ProtectedError, RestrictedError) as error:
            if len(ids) == 1:
                self.protected[ids[0]] = protecting(error)
                return True
        else:
            if number <= MAX_ROWS:
                return collector is None or self._add(collector)
        middle = len(ids) // 2
        return self._count(ids[:middle]) and self._count(ids[middle:])

    def _add(self, collector: OthersCollector) -> bool:
        """Count the rows of a collector, and return whether there are not too many."""
        is_complete = True
        for model, rows in collector.data.items():
            self._deleted[model._meta.label].update(row.pk for row in rows)
        for query in collector.fast_deletes:
            keys, has_more = _first_keys(query)
            self._deleted[query.model._meta.label].update(keys)
            is_complete = is_complete and not has_more
        for label, by_field in _changed(collector):
            changed = set[Any]()
            for name, changed_rows in by_field.items():
                keys, has_more = _first_keys(changed_rows)
                changed |= keys - self._changed_keys[label, name]  # a circle of rows comes again with each portion
                self._changed_keys[label, name] |= keys
                is_complete = is_complete and not has_more
            self._changed[label] += len(changed - self._deleted[label])
        return is_complete


def _first_keys(rows: QuerySet[Any]) -> tuple[set[Any], bool]:
    """Return the primary keys of up to `MAX_ROWS` rows, and whether there are more."""
    keys = list(rows.order_by().values_list("pk", flat=True)[: MAX_ROWS + 1])
    return set(keys[:MAX_ROWS]), len(keys) > MAX_ROWS


def _protected(ids: Sequence[int], using: str) -> Protected:
    """Return the ids of the streams that `PROTECT` of a foreign key to them keeps, with the labels of its models."""
    labels: dict[int, set[str]] = defaultdict(set)
    for relation, rows in _referring(Stream.objects.using(using).filter(has_id("id", ids, using)), using):
        if relation.on_delete is PROTECT:
            for pk in rows.order_by().values_list(f"{relation.field.name}__pk", flat=True).distinct():
                labels[pk].add(relation.related_model._meta.label)
    return {pk: frozenset(some) for pk, some in labels.items()}


def _collected(streams: Sequence[Model], using: str) -> OthersCollector:
    collector = OthersCollector(using=using)
    collector.collect(streams)
    # The streams are removed in another way: their rows stay until the purge.
    for model in [model for model in collector.data if issubclass(model, Stream)]:
        del collector.data[model]
    return collector


def _changed(collector: Any) -> Iterator[tuple[str, dict[str, QuerySet[Any]]]]:
    """Yield the rows of each model that are changed and stay, by the names of the foreign keys that are changed."""
    by_model: dict[Any, dict[str, QuerySet[Any]]] = defaultdict(dict)
    for (field, _), groups in collector.field_updates.items():
        if field.remote_field.on_delete is CASCADE:  # on MySQL, Django empties the key before it deletes the row
            continue
        for group in groups:
            # A function for `on_delete` may pass a list of rows.
            keys = None if isinstance(group, QuerySet) else [row.pk for row in group]
            rows = group if keys is None else field.model._base_manager.using(collector.using).filter(pk__in=keys)
            by_field = by_model[rows.model]
            by_field[field.name] = by_field[field.name] | rows if field.name in by_field else rows.all()
    for model, by_field in by_model.items():
        are_deleted = Q(pk__in=[row.pk for row in collector.data.get(model, ())])
        for query in collector.fast_deletes:
            if query.model is model:
                are_deleted |= Q(pk__in=query.values("pk"))
        yield model._meta.label, {name: rows.exclude(are_deleted) for name, rows in by_field.items()}


def are_there() -> bool:
    """Return whether the project has a model that refers to streams."""
    return any(not _is_own(relation.related_model) for relation in get_candidate_relations_to_delete(Stream._meta))


def refer_to(streams: QuerySet[Stream], using: str) -> bool:
    """Return whether a row refers to one of some streams: one short query for each model.

    `follow` needs the streams as objects, which takes longer than the deletion of their rows.
    """
    return any(rows.exists() for _, rows in _referring(streams, using))


def _referring(streams: QuerySet[Stream], using: str) -> Iterator[tuple[Any, QuerySet[Any]]]:
    """Yield the relation of each foreign key to streams, with the rows that refer to one of some streams."""
    relations: Any = get_candidate_relations_to_delete(Stream._meta)
    for relation in relations:
        if not _is_own(relation.related_model):
            rows: QuerySet[Any] = QuerySet(relation.related_model, using=using).filter(
                **{f"{relation.field.name}__in": streams}
            )
            yield relation, rows


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
