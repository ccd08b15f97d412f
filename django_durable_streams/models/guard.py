"""Rows that only the protocol writes: what Django's models would write past it is refused.

An instance that somebody holds is a copy of how a row was. To write it back, or to write a column by itself, would take
back acknowledged appends, tear the log, or change what readers and producers rely on, and nobody would be told of it.
So every way that leads from a model, a manager or a queryset to INSERT, UPDATE and DELETE ends here, whichever public
method it begins with: an instance's at `_save_table`, a queryset's at `_insert`, `_update` and `_raw_delete`, and the
methods that build a statement of their own. The base manager is guarded as well, as Django's internals use that.

This package writes by the statements of `store.sql`, and by `unguarded`, which is the one door.
"""

from __future__ import annotations

from typing import Any, ClassVar, Never, TypeVar

from django.db import models

Row = TypeVar("Row", bound=models.Model)


class ReadOnlyModelError(RuntimeError):
    """A write was refused, as only the protocol writes these rows. The message names the method to call instead."""


class GuardedQuerySet(models.QuerySet[Row]):
    """A queryset that reads."""

    def unguarded(self) -> models.QuerySet[Row]:
        """Return the same rows as a queryset that writes. For this package, which knows what else depends on them."""
        using = self._db  # type: ignore[attr-defined]  # None where nobody has said: then the router is asked to write
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


class GuardedModel(models.Model):
    """A model whose rows only the protocol writes. Its Meta names a guarded manager as the `base_manager_name`."""

    instead: ClassVar[dict[str, str]]
    """What to call instead, where somebody would `add`, `change` or `delete` rows."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **options: Any) -> Never:
        """Refuse. See `GuardedModel.instead` for what there is in its place."""
        refuse(type(self), "save", "add" if self._state.adding else "change")

    def save_base(self, *args: Any, **options: Any) -> Never:
        """Refuse."""
        refuse(type(self), "save_base", "add" if self._state.adding else "change")

    def delete(self, *args: Any, **options: Any) -> tuple[int, dict[str, int]]:
        """Refuse."""
        refuse(type(self), "delete", "delete")

    def _save_table(self, raw: bool = False, *args: Any, **options: Any) -> Never:
        # Where a fixture comes from, and a model with a table of its own that inherits from this one.
        if not raw:
            refuse(type(self), "save", "add")
        label = self._meta.app_label
        raise ReadOnlyModelError(
            f"A fixture cannot restore rows of {self._meta.label}: it may be older than what is there, or not whole. "
            f"Leave them out (loaddata --exclude {label}), and copy streams with the tools of the database."
        )


def refuse(model: type[models.Model], method: str, kind: str) -> Never:
    """Raise the error for a write that passes the protocol by."""
    instead: dict[str, str] = getattr(model, "instead", {})
    raise ReadOnlyModelError(
        f"{model._meta.object_name}.{method}() would write past the protocol, and is refused. {instead.get(kind, '')}"
    )
