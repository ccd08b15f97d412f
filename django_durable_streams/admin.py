"""Streams in the admin: what they are like, where they come from, and what was forked from them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from .models import Stream

MAX_FORKS = 100
"""Forks that a stream's page lists."""


@admin.register(Stream)
class StreamAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Streams, to look at and to delete. Their data is not loaded here."""

    list_display = (
        "path",
        "content_type",
        "tail_position",
        "closed",
        "deadline",
        "source",
        "created_at",
        "appended_at",
    )
    list_filter = ("closed",)
    list_select_related = ("source",)
    search_fields = ("path__startswith",)
    show_full_result_count = False
    ordering = ("-id",)
    fields = (
        "path",
        "content_type",
        "next_offset",
        "closed",
        "ttl",
        "expires_at",
        "deadline",
        "source",
        "fork_position",
        "forks",
        "deleted_at",
        "created_at",
        "appended_at",
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Stream]:
        """Leave out what is only waiting for its rows to go."""
        return super().get_queryset(request).filter(path__isnull=False)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Streams are made by the protocol or by code, which know what they are for."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A stream's row is the store's business."""
        return False

    @admin.display(description=_("forks"))
    def forks(self, stream: Stream) -> SafeString:
        """Return links to the streams that were forked from this one."""
        found = stream.forks.filter(path__isnull=False).order_by("id")[: MAX_FORKS + 1]
        links = format_html_join(
            ", ",
            '<a href="{}">{}</a>',
            ((reverse("admin:durable_streams_stream_change", args=[fork.pk]), fork.path) for fork in found[:MAX_FORKS]),
        )
        return format_html("{}{}", links or "-", ", ..." if len(found) > MAX_FORKS else "")

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Stream]) -> None:
        """Delete by the protocol's rules, so that readers are told and forks keep their data."""
        queryset.delete()
