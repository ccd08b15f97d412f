"""URLs of streams, for pages that link to them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from django.conf import settings
from django.urls import NoReverseMatch, get_script_prefix, reverse

from .conf import config

if TYPE_CHECKING:
    from .models import Stream

DEFAULT_PREFIX = "v1/stream/"
"""The root of the streams in the ASGI application, unless its argument says otherwise."""


def stream_url(stream: Stream | str) -> str:
    """Return the URL of a stream, or of the stream at a path, percent-encoded.

    The URL begins with `URL_PREFIX` if that is set, else with the place where the URLs are included, else with
    `/v1/stream/`. It has no host, unless the setting names one.
    """
    path = stream if isinstance(stream, str) else stream.path or ""
    return _prefix() + quote(path)


def _prefix() -> str:
    if config().url_prefix:
        return config().url_prefix
    try:
        if getattr(settings, "ROOT_URLCONF", None):
            return reverse("durable_streams:root")
    except NoReverseMatch:
        pass
    return get_script_prefix() + DEFAULT_PREFIX
