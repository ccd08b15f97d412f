"""The guard of the tables: Django's own ways to write rows are refused, because only `store` may write them.

A model instance is a copy of an earlier state of its row. Writing it back, or writing one column, would take back
acknowledged appends or break the log, and readers would not learn of it. So the guard refuses every way from a model, a
manager or a queryset to INSERT, UPDATE and DELETE. An instance's ways meet in `_save_table`, a queryset's in `_insert`,
`_update` and `_raw_delete`, and some methods build their own statement. Django's internals use the base manager, so it
is guarded, too.

A project's proxy model may have any manager. `_GuardedOptions` is the place where Django asks for the managers of a
model. So every manager of a guarded model makes querysets that only read, whichever class has brought it.

A migration's historical models have no methods of their models, but the bases that the migrations name. `ReadOnlyRows`
is one of these. A row that a historical model wrote would have no generation, and so offsets of an earlier stream at
its path, no deadline for its TTL, no links of subscriptions and no entry of the registry.

This package writes by the statements of `store.sql`, and by `unguarded`. Its own migrations use the latter, too.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeVar

from django.apps import apps
from django.db import models
from django.db.models.manager import BaseManager
from django.db.models.options import Options
from django.db.models.signals import class_prepared
from django.utils.functional import cached_property

if TYPE_CHECKING:
    _Options = Options[Any]
else:
    _Options = Options

Row = TypeVar("Row", bound=models.Model)


class ReadOnlyModelError(RuntimeError):
    """A write was refused, because only the protocol writes these rows. The message names the method to call."""


class GuardedQuerySet(models.QuerySet[Row]):
    """A queryset that only reads."""

    def unguarded(self) -> models.QuerySet[Row]:
        """Return a queryset of the same rows that can write. Only for `store`."""
        using = self._db  # type: ignore[attr-defined]  # None: then the router chooses the database
        return models.QuerySet(self.model, query=self.query.chain(), using=using)

    def create(self, **values: Any) -> Any:
        refuse(self.model, "create", "add")

    def bulk_create(self, *args: Any, **options: Any) -> Never:
        refuse(self.model, "bulk_create", "add")

    def get_or_create(self, *args: Any, **values: Any) -> Never:
        refuse(self.model, "get_or_create", "add")

    def update_or_create(self, *args: Any, **values: Any) -> Never:
        refuse(self.model, "update_or_create", "add")

    def update(self, **values: Any) -> Never:
        refuse(self.model, "update", "change")

    def bulk_update(self, *args: Any, **options: Any) -> Never:
        refuse(self.model, "bulk_update", "change")

    def delete(self) -> tuple[int, dict[str, int]]:
        refuse(self.model, "delete", "delete")

    def _insert(self, *args: Any, **options: Any) -> Never:
        refuse(self.model, "_insert", "add")

    def _update(self, *args: Any, **options: Any) -> Never:
        refuse(self.model, "_update", "change")

    def _raw_delete(self, *args: Any, **options: Any) -> Never:
        refuse(self.model, "_raw_delete", "delete")

    create.alters_data = True  # type: ignore[attr-defined]
    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]
    _insert.queryset_only = False  # type: ignore[attr-defined]
    _update.queryset_only = False  # type: ignore[attr-defined]


class ReadOnlyRows:
    """Refuses the writes of an instance. Not a model itself, so that migrations name it as a base: keep its path."""

    if TYPE_CHECKING:
        _meta: Any
        _state: Any

    def save(self, *args: Any, **options: Any) -> Never:
        """Refuse. `instead` names the method to call."""
        refuse(_model_of(self), "save", "add" if self._state.adding else "change")

    def save_base(self, *args: Any, **options: Any) -> Never:
        """Refuse."""
        refuse(_model_of(self), "save_base", "add" if self._state.adding else "change")

    def delete(self, *args: Any, **options: Any) -> tuple[int, dict[str, int]]:
        """Refuse."""
        refuse(_model_of(self), "delete", "delete")

    def _save_table(self, raw: bool = False, *args: Any, **options: Any) -> Never:
        # Called for a fixture, and for a model that inherits from this one with a table of its own.
        if not raw:
            refuse(_model_of(self), "save", "add")
        label = self._meta.app_label
        raise ReadOnlyModelError(
            f"A fixture cannot restore rows of {self._meta.label}: it may be incomplete, or older than the rows. "
            f"Leave them out (loaddata --exclude {label}), and move streams by `manage.py streams export` and `import`."
        )

    save.alters_data = True  # type: ignore[attr-defined]
    save_base.alters_data = True  # type: ignore[attr-defined]
    delete.alters_data = True  # type: ignore[attr-defined]


class GuardedModel(ReadOnlyRows, models.Model):
    """A model whose rows only the protocol writes. Its Meta names a guarded manager as the `base_manager_name`."""

    instead: ClassVar[dict[str, str]]
    """The method to call instead of a write, by its kind: `add`, `change` or `delete`."""

    class Meta:
        abstract = True


def _model_of(row: ReadOnlyRows) -> type[models.Model]:
    return type(row)  # type: ignore[return-value]  # a model has it among its bases


def refuse(model: type[models.Model], method: str, kind: str) -> Never:
    """Raise the error for a write that bypasses the protocol.

    Args:
        method: name of the refused method.
        kind: `add`, `change` or `delete`, a key of the model's `instead`.
    """
    instead: dict[str, str] | None = getattr(model, "instead", None)
    raise ReadOnlyModelError(
        f"{model._meta.object_name}.{method}() is refused, as it would bypass the protocol. "
        f"{_instead_in_a_migration(model, kind) if instead is None else instead.get(kind, '')}"
    )


def _instead_in_a_migration(model: type[models.Model], kind: str) -> str:
    """Return the sentences for a historical model, which has no attributes of its model."""
    name = _concrete(model)._meta.object_name
    try:
        instead: dict[str, str] = getattr(apps.get_model(_concrete(model)._meta.label), "instead", {})
    except LookupError:  # a later version of this app has no such model
        instead = {}
    return (
        "It is a historical model of a migration, which can only read. Import the model instead: "
        f"from django_durable_streams.models import {name}. {instead.get(kind, '')}"
    )


def _concrete(model: type[models.Model]) -> type[models.Model]:
    return model._meta.concrete_model or model


class _GuardedManager(BaseManager[Any]):
    """Stands before the class of a manager: the manager's querysets only read."""

    def get_queryset(self) -> models.QuerySet[Any]:
        queryset = super().get_queryset()
        if not isinstance(queryset, GuardedQuerySet):
            queryset.__class__ = guarded_queryset_class(type(queryset))
        return queryset


class _GuardedOptions(_Options):
    """The options of a guarded model, with guarded managers."""

    @cached_property
    def managers(self) -> Any:
        """The managers: copies that belong to this model alone."""
        managers = super().managers
        for manager in managers:
            _guard(manager)
        return managers

    @cached_property
    def base_manager(self) -> Any:
        """One of the managers, or a new one."""
        manager = super().base_manager
        _guard(manager)
        return manager


def _guard(manager: BaseManager[Any]) -> None:
    kind: Any = type(manager)
    manager.__class__ = _guarded_manager_class(kind)


@cache
def _guarded_manager_class(kind: Any) -> Any:
    is_guarded = issubclass(kind._queryset_class, GuardedQuerySet) and kind.get_queryset is BaseManager.get_queryset
    if is_guarded or issubclass(kind, _GuardedManager):
        return kind
    # With the name and the module of the original, which a migration may have to import.
    return type(kind.__name__, (_GuardedManager, kind), {"__module__": kind.__module__})


@cache
def guarded_queryset_class(kind: type[models.QuerySet[Any]]) -> type[models.QuerySet[Any]]:
    """Return the class of querysets that are of a kind and only read."""
    if issubclass(kind, GuardedQuerySet):
        return kind
    if kind is models.QuerySet:
        return GuardedQuerySet
    members = {"__module__": kind.__module__, "__reduce__": lambda queryset: _pickled(kind, queryset)}
    # The project's own methods stay. They call Django's, and those are the guard's here.
    return type(kind.__name__, (kind, GuardedQuerySet), members)


def _pickled(kind: type[models.QuerySet[Any]], queryset: models.QuerySet[Any]) -> tuple[object, ...]:
    return _unpickled, (kind,), queryset.__getstate__()


def _unpickled(kind: type[models.QuerySet[Any]]) -> models.QuerySet[Any]:
    guarded = guarded_queryset_class(kind)
    return guarded.__new__(guarded)


def _guard_managers(sender: type[models.Model], **kwargs: Any) -> None:
    if issubclass(sender, ReadOnlyRows):
        sender._meta.__class__ = _GuardedOptions
        sender._meta._expire_cache(reverse=False)


class_prepared.connect(_guard_managers, dispatch_uid="durable_streams.guard_managers")
