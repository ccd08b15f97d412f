"""Deleting streams in the admin, by the protocol's rules, and what is said of it before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import Stream
from ..protocol.errors import DurableStreamsError
from .base import StreamPages

MAX_SHOWN = 100
"""Streams that a confirmation names one by one."""


class DeleteViews(StreamPages):
    """What differs from deleting rows: data belongs to forks too, and readers are told."""

    def get_deleted_objects(
        self, objs: QuerySet[Stream] | Sequence[Stream], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Say what deleting streams comes to, without a look at their chunks, producers and forks one by one."""
        streams = list(objs)
        forks = self._forks(streams[:MAX_SHOWN])
        lines = [self._line(request, stream, forks.get(stream.pk, 0)) for stream in streams[:MAX_SHOWN]]
        if len(streams) > MAX_SHOWN:
            lines.append(_("… and %d more") % (len(streams) - MAX_SHOWN))
        lacking = set()
        if not all(self.has_delete_permission(request, stream) for stream in streams):
            lacking.add(str(self.opts.verbose_name))
        return lines, {str(self.opts.verbose_name_plural): len(streams)}, lacking, []

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
        except DurableStreamsError as error:
            self.message_user(request, error.detail, messages.ERROR)
            return HttpResponseRedirect(self.url("changelist"))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> None:
        """Delete streams one by one, so that none waits for the others; those that have ended are left alone."""
        for stream in _alive(queryset):
            if not self.may(request, "delete", stream):
                raise PermissionDenied
            try:
                stream.delete()
            except DurableStreamsError as error:
                self.message_user(request, f"{stream}: {error.detail}", messages.WARNING)


def _alive(streams: Iterable[Stream]) -> list[Stream]:
    return [stream for stream in streams if stream.path is not None and stream.deleted_at is None]
