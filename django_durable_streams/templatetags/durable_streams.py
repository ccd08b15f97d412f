"""Template tags: `{% load durable_streams %}`."""

from __future__ import annotations

from django import template

from .. import links
from ..models import Stream

register = template.Library()


@register.simple_tag
def stream_url(stream: Stream | str) -> str:
    """Return the URL of a stream or of a path: `{% stream_url stream %}`, `{% stream_url "chat/42" as url %}`."""
    return links.stream_url(stream)
