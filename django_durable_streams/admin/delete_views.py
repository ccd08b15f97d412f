"""Deleting streams in the admin, by the protocol's rules, and what is said of it before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import NestedObjects
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Model, ProtectedError, QuerySet, RestrictedError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import Stream
from ..protocol.errors import DurableStreamsError
from ..store.upkeep import related_rows
from .base import StreamPages

MAX_SHOWN = 100
"""Streams that a confirmation names one by one, and as many of the project's rows that go with them."""

_FORBIDDEN = (ProtectedError, RestrictedError)


class _OthersNested(related_rows.OthersCollector, NestedObjects):
    """The admin's collector, which notes what would be deleted, among the models of other apps."""


class DeleteViews(StreamPages):
    """What differs from deleting rows: data belongs to forks too, and readers are told.

    Rows of the project's own models that refer to streams are as everywhere in the admin: who deletes a stream needs
    the permission to delete what goes with it, and what is protected forbids it.
    """

    def get_deleted_objects(
        self, objs: QuerySet[Stream] | Sequence[Stream], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Say what deleting streams comes to, without a look at their chunks, producers and forks one by one."""
        streams = list(objs)
        forks = self._forks(streams[:MAX_SHOWN])
        lines = [self._line(request, stream, forks.get(stream.pk, 0)) for stream in streams[:MAX_SHOWN]]
        lines += _rest(streams)
        lacking = set()
        if not all(self.has_delete_permission(request, stream) for stream in streams):
            lacking.add(str(self.opts.verbose_name))
        counts = {str(self.opts.verbose_name_plural): len(streams)}
        others = self._others(streams)
        by_model: Mapping[Any, set[Model]] = others.model_objs
        for model, rows in by_model.items():
            if not issubclass(model, Stream):
                lines += [*map(self._other_line, [*rows][:MAX_SHOWN]), *_rest(rows)]
                counts[str(model._meta.verbose_name_plural)] = len(rows)
                if not self._may_delete(request, rows):
                    lacking.add(str(model._meta.verbose_name))
        return lines, counts, lacking, [*map(self._other_line, others.protected)]

    def _others(self, streams: Sequence[Stream]) -> _OthersNested:
        """Return the project's own rows that go with streams, and those that forbid to delete them."""
        found = _OthersNested(using=self.alias, origin=streams)
        if streams and related_rows.are_there():
            found.collect(streams)
        return found

    def _may_delete(self, request: HttpRequest, rows: Iterable[Model]) -> bool:
        """Whether a user may delete rows of one model. What has no admin goes with what it belongs to, as in Django."""
        model = type(next(iter(rows)))
        if not self.admin_site.is_registered(model):
            return True
        pages = self.admin_site.get_model_admin(model)
        return all(pages.has_delete_permission(request, row) for row in rows)

    def _other_line(self, row: Model) -> str:
        opts = row._meta
        name = capfirst(opts.verbose_name)
        try:
            url = reverse(f"{self.admin_site.name}:{opts.app_label}_{opts.model_name}_change", args=[row.pk])
        except NoReverseMatch:
            return format_html("{}: {}", name, row)
        return format_html('{}: <a href="{}">{}</a>', name, url, row)

    def _forks(self, streams: Sequence[Stream]) -> dict[int, int]:
        """Return how many forks each of some streams has, where it has any."""
        found = Stream.objects.using(self.alias).filter(source__in=streams, path__isnull=False).order_by()
        return dict(found.values_list("source_id").annotate(count=Count("pk")))

    def _line(self, request: HttpRequest, stream: Stream, forks: int) -> str:
        link = format_html('<a href="{}">{}</a>', self.url("change", stream.pk), stream)
        if not self.may(request, "view", stream):
            link = format_html("<i>{}</i>", _("a stream that you may not see"))
        if not forks:
            return link
        note = ngettext(
            "It has a fork: its data is kept for it, and its path stays taken until that is deleted too.",
            "It has %(count)d forks: its data is kept for them, and its path stays taken until they are deleted too.",
            forks,
        )
        return format_html("{} – {}", link, note % {"count": forks})

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete a stream, after asking. One that has ended meanwhile is no error of the server's."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except (DurableStreamsError, *_FORBIDDEN) as error:
            self.message_user(request, _reason(error), messages.ERROR)
            return HttpResponseRedirect(self.url("changelist"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> None:
        """Delete streams one by one, so that none waits for the others; those that have ended are left alone."""
        for stream in _alive(queryset):
            if not self.may(request, "delete", stream):
                raise PermissionDenied
            try:
                stream.delete()
            except (DurableStreamsError, *_FORBIDDEN) as error:
                self.message_user(request, f"{stream}: {_reason(error)}", messages.WARNING)


def _rest(rows: Collection[Model]) -> list[str]:
    """Return a line for those that are not named, if there are any."""
    return [_("… and %d more") % (len(rows) - MAX_SHOWN)] if len(rows) > MAX_SHOWN else []


def _reason(error: Exception) -> str:
    if isinstance(error, DurableStreamsError):
        return error.detail
    return _("Something that refers to it forbids to delete it.")


def _alive(streams: Iterable[Stream]) -> list[Stream]:
    return [stream for stream in streams if stream.path is not None and stream.deleted_at is None]
