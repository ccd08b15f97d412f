"""Pages that delete streams by the protocol's rules, and that name the consequences first."""

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

MAX_ROWS_NAMED = 100
"""Streams that a confirmation names one by one, and related rows of each model."""

FORBIDDEN = (ProtectedError, RestrictedError)
"""Errors of rows that protect a stream from deletion."""


class _RelatedRowsCollector(related_rows.OthersCollector, NestedObjects):
    """The admin's collector of rows to delete, for the models of other apps only."""


class DeleteViews(StreamPages):
    """Pages that delete streams. Unlike with other rows, forks may keep the data, and live readers get the end.

    Rows of the project's own models that refer to streams follow the admin's usual rules. The user needs the permission
    to delete these rows, and protected rows prevent the deletion.
    """

    def get_deleted_objects(
        self, objs: QuerySet[Stream] | Sequence[Stream], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return the texts of the confirmation, without loading chunks, producers and forks one by one."""
        streams = list(objs)
        forks = self._count_forks(streams[:MAX_ROWS_NAMED])
        lines = [self._stream_line(request, stream, forks.get(stream.pk, 0)) for stream in streams[:MAX_ROWS_NAMED]]
        lines += _remaining_line(streams)
        missing_permissions = set()
        if not all(self.has_delete_permission(request, stream) for stream in streams):
            missing_permissions.add(str(self.opts.verbose_name))
        counts = {str(self.opts.verbose_name_plural): len(streams)}
        related = self._collect_related_rows(streams)
        by_model: Mapping[Any, set[Model]] = related.model_objs
        for model, rows in by_model.items():
            if not issubclass(model, Stream):
                lines += [*map(self._related_row_line, [*rows][:MAX_ROWS_NAMED]), *_remaining_line(rows)]
                counts[str(model._meta.verbose_name_plural)] = len(rows)
                if not self._may_delete(request, rows):
                    missing_permissions.add(str(model._meta.verbose_name))
        return lines, counts, missing_permissions, [*map(self._related_row_line, related.protected)]

    def _collect_related_rows(self, streams: Sequence[Stream]) -> _RelatedRowsCollector:
        """Collect the project's own rows that a deletion includes, and the rows that prevent it."""
        collector = _RelatedRowsCollector(using=self.alias, origin=streams)
        if streams and related_rows.are_there():
            collector.collect(streams)
        return collector

    def _may_delete(self, request: HttpRequest, rows: Iterable[Model]) -> bool:
        """Return whether a user may delete rows of one model. Models without an admin need no permission."""
        model = type(next(iter(rows)))
        if not self.admin_site.is_registered(model):
            return True
        pages = self.admin_site.get_model_admin(model)
        return all(pages.has_delete_permission(request, row) for row in rows)

    def _related_row_line(self, row: Model) -> str:
        opts = row._meta
        name = capfirst(opts.verbose_name)
        try:
            url = reverse(f"{self.admin_site.name}:{opts.app_label}_{opts.model_name}_change", args=[row.pk])
        except NoReverseMatch:
            return format_html("{}: {}", name, row)
        return format_html('{}: <a href="{}">{}</a>', name, url, row)

    def _count_forks(self, streams: Sequence[Stream]) -> dict[int, int]:
        """Return the number of forks by the ids of streams. Streams without forks are left out."""
        forks = Stream.objects.using(self.alias).filter(source__in=streams, path__isnull=False).order_by()
        return dict(forks.values_list("source_id").annotate(count=Count("pk")))

    def _stream_line(self, request: HttpRequest, stream: Stream, forks: int) -> str:
        link = format_html('<a href="{}">{}</a>', self.url("change", stream.pk), stream)
        if not self.may(request, "view", stream):
            link = format_html("<i>{}</i>", _("a stream that you may not see"))
        if not forks:
            return link
        note = ngettext(
            "It has a fork. Its data is kept, and its path stays in use until the fork is deleted, too.",
            "It has %(count)d forks. Its data is kept, and its path stays in use until the forks are deleted, too.",
            forks,
        )
        return format_html("{} – {}", link, note % {"count": forks})

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete a stream after a confirmation. If the stream has ended meanwhile, the page says so."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except (DurableStreamsError, *FORBIDDEN) as error:
            self.message_user(request, _reason(error), messages.ERROR)
            return HttpResponseRedirect(self.url("changelist"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> None:
        """Delete streams one by one, so that one failure does not stop the others. Ended streams are skipped."""
        for stream in existing(queryset):
            if not self.may(request, "delete", stream):
                raise PermissionDenied
            try:
                stream.delete()
            except (DurableStreamsError, *FORBIDDEN) as error:
                self.message_user(request, f"{stream}: {_reason(error)}", messages.WARNING)


def _remaining_line(rows: Collection[Model]) -> list[str]:
    """Return a line with the number of rows that are not named, if there are any."""
    return [_("… and %d more") % (len(rows) - MAX_ROWS_NAMED)] if len(rows) > MAX_ROWS_NAMED else []


def _reason(error: Exception) -> str:
    if isinstance(error, DurableStreamsError):
        return error.detail
    return _("The stream cannot be deleted, because protected rows refer to it.")


def existing(streams: Iterable[Stream]) -> list[Stream]:
    """Return the streams that were not deleted when they were loaded."""
    return [stream for stream in streams if stream.path is not None and stream.deleted_at is None]
