"""The URLs of event sources, and the attributes with which htmx and Datastar follow them.

Each library ends at the last event of a stream, or at the 204 after it. All of them try again after a refusal, so they
ask for it as an event (`refusals=event`). Knows no templates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.urls import get_script_prefix, resolve, reverse
from django.utils.html import escapejs, format_html
from django.utils.safestring import SafeString

from ...protocol import page_events
from .options import EventSourceSettings

if TYPE_CHECKING:
    from ...models import Stream
    from .rendering import StreamAt


def event_url(name: str, stream: Stream | StreamAt | str, offset: str = "", *, refusals: bool = False) -> str:
    """Return the URL of the event source of a stream.

    As a tag it is escaped for HTML. In a script, `{% event_url ... as url %}` and `{{ url|escapejs }}` keep its `&`.

    Args:
        name: the name of the URL pattern, whose argument `path` is the path of the stream.
        stream: the stream, or its path.
        offset: where a page begins. Empty: where the view says.
        refusals: whether refusals that last come as events.

    Raises:
        NoReverseMatch: there is no such pattern.
    """
    url = reverse(name, kwargs={"path": stream if isinstance(stream, str) else stream.path})
    query = {"offset": offset} if offset else {}
    if refusals:
        query[page_events.REFUSALS] = "event"
    return f"{url}?{urlencode(query)}" if query else url


def htmx2(name: str, stream: Stream | StreamAt | str, offset: str = "", *, swap: str = "") -> SafeString:
    """Return the attributes of an element that swaps in each event, for htmx 2 with its extension `sse`.

    Args:
        name: as for `event_url`.
        stream: as for `event_url`.
        offset: as for `event_url`.
        swap: the names of the events, separated by commas. Empty: that of the view, or all events without a name.
    """
    settings = _settings_of(name)
    if not swap:
        swap = settings.event if isinstance(settings.event, str) and settings.event else "message"
    return format_html(
        'hx-ext="sse" sse-connect="{}" sse-swap="{}" sse-close="{}"',
        event_url(name, stream, offset, refusals=True),
        swap,
        settings.end_event,
    )


def htmx4(name: str, stream: Stream | StreamAt | str, offset: str = "") -> SafeString:
    """Return the attributes of an element that swaps in each event without a name, for htmx 4 with `hx-sse`."""
    url = event_url(name, stream, offset, refusals=True)
    return format_html('hx-sse:connect="{}" hx-sse:close="{}"', url, _settings_of(name).end_event)


def datastar(name: str, stream: Stream | StreamAt | str, offset: str = "") -> SafeString:
    """Return the attribute of an element that follows the event source with Datastar 1 until the stream ends.

    Datastar replaces signals such as `$name`, and actions such as `@get(`, also inside strings.
    """
    url = escapejs(event_url(name, stream, offset, refusals=True)).replace("$", "\\u0024").replace("@", "\\u0040")
    return format_html("data-init=\"@get('{}', {{retry: 'always', retryMaxCount: Infinity}})\"", url)


def _settings_of(name: str) -> EventSourceSettings:
    """Return the options of an `EventView`, or the defaults for another view."""
    url = reverse(name, kwargs={"path": "x"})
    view = resolve("/" + url.removeprefix(get_script_prefix())).func
    settings = getattr(view, "event_source_settings", None)
    return settings if isinstance(settings, EventSourceSettings) else EventSourceSettings()
