"""Checks of the middleware in front of streams that are served through the project's URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Info, register

from ..server.entry_points import has_url_entry_point

_NOTES = {
    "django.middleware.gzip.GZipMiddleware": Info(
        "GZipMiddleware compresses each read through the URLs again.",
        hint="It does not compress event streams, because they are marked. Let a proxy compress, or mount the ASGI "
        "application, which runs without middleware.",
        id="durable_streams.I001",
    ),
    "django.middleware.http.ConditionalGetMiddleware": Info(
        "ConditionalGetMiddleware has no effect on streams that are read through the URLs.",
        hint="Streams have ETags of their own, and answer If-None-Match themselves. A response of the middleware would "
        "lack the protocol's headers. Nothing needs to change.",
        id="durable_streams.I002",
    ),
}


@register()
def check_urls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """I001: GZipMiddleware. I002: ConditionalGetMiddleware."""
    if not any(path in settings.MIDDLEWARE for path in _NOTES) or not has_url_entry_point():
        return []
    return [note for path, note in _NOTES.items() if path in settings.MIDDLEWARE]
