"""The page that deletes all streams of a filtered list, however many they are, and shows how far it is.

Each request deletes streams for a second or two, and answers with a form that goes on after the last of them. A script
sends the form; without scripts, the user does. So no request takes long, and the user may leave at any time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..api import deletion
from ..models import Stream
from ..protocol.errors import DurableStreamsError
from ..store.upkeep import related_rows
from .changelist import MAX_ROWS_PER_ACTION
from .delete_views import FORBIDDEN, DeleteViews, existing

STREAMS_PER_TRANSACTION = 500
"""Streams that one transaction deletes. Appends wait for the transaction."""

STEP_SECONDS = 1.5
"""Time after which a request begins no further transaction."""

COUNT_LIMIT = 100_000
"""Streams that the confirmation counts."""


class _Done(NamedTuple):
    """What the requests so far have done. The form carries it from one to the next."""

    until: int = 0
    """The id of the last stream that was there at the confirmation. Later ones stay: a client may make them again."""
    after: int = 0
    """The id of the last stream that was looked at."""
    deleted: int = 0
    kept: int = 0
    """Streams that the user may not delete, or that other rows protect."""


class BulkDeletion(DeleteViews):
    """Deletes all streams that match the filters of the list."""

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Stream], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Lead to the page, if more streams are to be deleted than one action takes."""
        if request.POST.get("action") == "delete_selected" and request.POST.get("select_across") == "1":
            more = queryset.order_by()[MAX_ROWS_PER_ACTION : MAX_ROWS_PER_ACTION + 1]
            if more.exists() and self.has_delete_permission(request):
                query = request.GET.urlencode()
                return HttpResponseRedirect(f"{self.url('delete_matching')}?{query}")
        return super().response_action(request, queryset, *args, **kwargs)

    def delete_matching_view(self, request: HttpRequest) -> HttpResponse:
        """Ask, or delete some more of the streams that match the filters in the URL."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        try:
            streams: QuerySet[Stream] = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.url("changelist"))
        list_url = f"{self.url('changelist')}?{request.GET.urlencode()}"
        if request.method != "POST":
            count = streams.order_by().values("pk")[:COUNT_LIMIT].count()
            newest = streams.order_by("-pk").values_list("pk", flat=True).first()
            return self._page(request, list_url, count=count, is_capped=count == COUNT_LIMIT, until=newest or 0)
        done = _Done(*(_number(request, name) for name in _Done._fields))
        done, is_finished = self._delete_some(request, streams, done)
        if not is_finished:
            return self._page(request, list_url, done=done, count=_number(request, "count"), until=done.until)
        text = ngettext("%(count)d stream was deleted.", "%(count)d streams were deleted.", done.deleted)
        self.message_user(request, text % {"count": done.deleted}, messages.SUCCESS)
        if done.kept:
            text = ngettext("%(count)d stream was kept", "%(count)d streams were kept", done.kept)
            reason = _("other rows protect it, or you may not delete it.")
            self.message_user(request, f"{text % {'count': done.kept}}: {reason}", messages.WARNING)
        return HttpResponseRedirect(list_url)

    def _page(self, request: HttpRequest, list_url: str, **context: Any) -> HttpResponse:
        return self.render(request, "delete_matching", _("Delete streams"), list_url=list_url, **context)

    def _delete_some(self, request: HttpRequest, streams: QuerySet[Stream], done: _Done) -> tuple[_Done, bool]:
        until = time.monotonic() + STEP_SECONDS
        while True:
            following = streams.order_by("pk").filter(pk__gt=done.after, pk__lte=done.until)
            portion = list(following[:STREAMS_PER_TRANSACTION])
            if not portion:
                return done, True
            present = existing(portion)
            deleted = self._delete_portion(request, present)
            done = _Done(done.until, portion[-1].pk, done.deleted + deleted, done.kept + len(present) - deleted)
            if time.monotonic() >= until:
                return done, False

    def _delete_portion(self, request: HttpRequest, streams: Sequence[Stream]) -> int:
        """Delete streams together or, where that is forbidden, each for itself. Return how many were deleted."""
        allowed = [stream for stream in streams if self.may(request, "delete", stream)]
        if not allowed:
            return 0
        try:
            self._check_related_rows(request, allowed)
            deleted = deletion.delete(allowed, self.alias)[0]
        except (DurableStreamsError, PermissionDenied, *FORBIDDEN):
            if len(allowed) == 1:
                return 0
            return sum(self._delete_portion(request, [stream]) for stream in allowed)
        if deleted:
            self.log_deletions(request, allowed)  # type: ignore[arg-type]
        return deleted

    def _check_related_rows(self, request: HttpRequest, streams: Sequence[Stream]) -> None:
        if not related_rows.are_there():
            return
        collected = self._collect_related_rows(streams)
        if collected.protected:
            raise PermissionDenied
        by_model: dict[Any, Any] = collected.model_objs
        for model, rows in by_model.items():
            if not issubclass(model, Stream) and not self._may_delete(request, rows):
                raise PermissionDenied


def _number(request: HttpRequest, name: str) -> int:
    text = request.POST.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
