"""What stands in front of streams that are served through the project's URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Info, register
from django.urls import NoReverseMatch, reverse

_NOTES = {
    "django.middleware.gzip.GZipMiddleware": Info(
        "GZipMiddleware compresses what is read through the URLs, anew for each request.",
        hint="Event streams are left alone: they are marked so that it does not cut them into pieces. Let a proxy "
        "compress, or mount the ASGI application, in front of which there is no middleware.",
        id="durable_streams.I001",
    ),
    "django.middleware.http.ConditionalGetMiddleware": Info(
        "ConditionalGetMiddleware has nothing to do for streams that are read through the URLs.",
        hint="They have ETags of their own, and answer If-None-Match before it could: its answers would lack the "
        "protocol's headers.",
        id="durable_streams.I002",
    ),
}


@register()
def check_urls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """I001: GZipMiddleware. I002: ConditionalGetMiddleware."""
    if not any(path in settings.MIDDLEWARE for path in _NOTES) or not has_url_entry_point():
        return []
    return [note for path, note in _NOTES.items() if path in settings.MIDDLEWARE]


def has_url_entry_point() -> bool:
    """Whether streams are served through the project's URLs."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        reverse("durable_streams:root")
    except NoReverseMatch:
        return False
    return True
