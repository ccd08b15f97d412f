"""Streams in the admin."""

from django.contrib import admin

from .models import Stream


@admin.register(Stream)
class StreamAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Streams, to look at."""

    list_display = ("__str__", "content_type", "tail", "closed", "deadline", "created_at", "appended_at")
    list_filter = ("closed",)
    search_fields = ("path__startswith",)
    show_full_result_count = False
    ordering = ("-id",)
