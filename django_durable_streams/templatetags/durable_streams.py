"""Template tags: `{% load durable_streams %}`."""

from __future__ import annotations

from django import template

from .. import links
from ..models import Stream
from ..server.pages import attributes

register = template.Library()


@register.simple_tag
def stream_url(stream: Stream | str) -> str:
    """Return the URL of a stream or of a path: `{% stream_url stream %}`, `{% stream_url "chat/42" as url %}`."""
    return links.stream_url(stream)


# Each begins with the name of a URL pattern and a stream: `{% event_url "events" stream offset=stream.next_offset %}`.
register.simple_tag(attributes.event_url)
register.simple_tag(attributes.htmx2, name="htmx2_events")
register.simple_tag(attributes.htmx4, name="htmx4_events")
register.simple_tag(attributes.datastar, name="datastar_events")
