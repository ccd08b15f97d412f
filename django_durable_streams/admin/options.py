"""The `ModelAdmin` of streams: the columns and actions of the list, and the URLs of the pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..models import Stream
from . import changelist, moments
from .bulk_deletion import BulkDeletion
from .edit_views import EditViews
from .filters import ExpiryFilter, ForkFilter, KindFilter, StateFilter
from .live_tail_view import LiveTailView
from .process_view import ProcessView
from .states import State


@admin.register(Stream)
class StreamAdmin(BulkDeletion, changelist.BoundedList[Stream], EditViews, LiveTailView, ProcessView):
    """The admin of streams. You may subclass it, or register it with a site of your own."""

    list_display = ("path", "state", "size", "chunks", "kind", "last_append", "expiry", "forked_from")
    list_filter = (StateFilter, KindFilter, ForkFilter, ExpiryFilter, ("appended_at", admin.DateFieldListFilter))
    search_fields = ("path",)
    search_help_text = gettext_lazy("The beginning of a path, such as chat/")
    ordering = ("-id",)
    actions = ("close_selected",)

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of a stream's pages, and then Django's own."""
        pages: dict[str, Any] = {
            "append": self.append_view,
            "close": self.close_view,
            "fork": self.fork_view,
            "keep": self.keep_view,
            "message": self.message_view,
            "download": self.download_view,
            "producers": self.producers_view,
            "sign": self.sign_view,
        }
        wrapped = {name: self.admin_site.admin_view(view) for name, view in pages.items()}
        prefix, admin_view = f"{self.opts.app_label}_{self.opts.model_name}", self.admin_site.admin_view
        pages_of_all = [
            path("process/", admin_view(self.process_view), name=f"{prefix}_process"),
            path("delete-matching/", admin_view(self.delete_matching_view), name=f"{prefix}_delete_matching"),
        ]
        return [*pages_of_all, *self.row_urls({**wrapped, "tail": self.tail_view}), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list with the title "Streams"."""
        return super().changelist_view(request, {"title": _("Streams"), **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[changelist.StreamChangeList]:
        return changelist.StreamChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Stream], search_term: str
    ) -> tuple[QuerySet[Stream], bool]:
        """Find streams by the beginning of their path. Spaces and wildcards are plain characters."""
        return (changelist.beginning_with(queryset, search_term) if search_term else queryset), False

    @admin.action(permissions=["change"], description=gettext_lazy("Close selected streams"))
    def close_selected(self, request: HttpRequest, queryset: QuerySet[Stream]) -> HttpResponse | None:
        """Close the selected streams that are open and that the user may close, after a confirmation."""
        chosen = list(queryset)
        allowed = [stream for stream in chosen if self.may(request, "change", stream)]
        if len(allowed) < len(chosen):
            count = len(chosen) - len(allowed)
            text = ngettext("You may not close %d of these streams.", "You may not close %d of these streams.", count)
            self.message_user(request, text % count, messages.ERROR)
        streams = [stream for stream in allowed if State.of(stream) is State.OPEN]
        if not streams:
            if allowed:
                self.message_user(request, _("None of these streams is open."), messages.WARNING)
            return None
        if request.POST.get("post"):
            count = self.close_streams(request, streams)
            text = ngettext("%d stream was closed.", "%d streams were closed.", count) % count
            self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)
            return None
        return self.render(
            request,
            "close_confirmation",
            _("Close streams"),
            streams=streams[: changelist.MAX_ROWS_PER_ACTION],
            count=len(streams),
            action="close_selected",
            action_checkbox_name=helpers.ACTION_CHECKBOX_NAME,
        )

    @admin.display(description=gettext_lazy("content type"), ordering="content_type")
    def kind(self, stream: Stream) -> SafeString:
        """Return the content type."""
        kind, slash, form = stream.content_type.partition("/")
        return format_html('<span class="ds-type">{}{}<wbr>{}</span>', kind, slash, form)

    @admin.display(description=gettext_lazy("size"), ordering="tail_position")
    def size(self, stream: Stream) -> SafeString:
        """Return the size of a stream's data, including the data of its sources."""
        return format_html(
            '<span class="ds-number" title="{}">{}</span>', stream.tail_position, filesizeformat(stream.tail_position)
        )

    @admin.display(description=gettext_lazy("chunks"))
    def chunks(self, stream: Stream) -> SafeString:
        """Return the number of a stream's own chunks, as the list has counted them."""
        return format_html('<span class="ds-number">{}</span>', getattr(stream, "chunk_count", "–"))

    @admin.display(description=gettext_lazy("state"))
    def state(self, stream: Stream) -> SafeString:
        """Return the state as a badge."""
        return State.of(stream).badge()

    @admin.display(description=gettext_lazy("expires"), ordering="deadline")
    def expiry(self, stream: Stream) -> str | None:
        """Return the time until a stream expires."""
        if not State.of(stream).is_alive:
            return None
        if stream.deadline is None:
            return _("never")
        return moments.ahead(stream.deadline)

    @admin.display(description=gettext_lazy("forked from"))
    def forked_from(self, stream: Stream) -> SafeString | None:
        """Return a link to a fork's source."""
        source: Stream | None = getattr(stream, "visible_source", None)  # set by the list
        if source is None:
            return None if stream.source_id is None else format_html("<i>{}</i>", _("another stream"))
        return format_html('<a href="{}">{}</a>', self.url("change", source.pk), source)

    @admin.display(description=gettext_lazy("last append"), ordering="appended_at")
    def last_append(self, stream: Stream) -> SafeString | None:
        """Return the time since the last append."""
        return moments.ago(stream.appended_at)
