from django.contrib import admin

from .models import Card


@admin.register(Card)
class CardAdmin(admin.ModelAdmin):
    """A card that is changed here moves on every open board."""

    list_display = ["text", "column", "moved_at"]
    list_filter = ["column"]
    search_fields = ["text"]
