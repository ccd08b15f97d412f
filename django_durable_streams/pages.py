"""What a project imports to send the messages of streams to its pages. See docs/pages.md."""

from .protocol.page_events import PageEvent
from .server.pages import datastar
from .server.pages.options import EventSourceOptions
from .server.pages.rendering import StreamAt
from .server.pages.sources import EventView, aevent_source, event_source

__all__ = ["EventSourceOptions", "EventView", "PageEvent", "StreamAt", "aevent_source", "datastar", "event_source"]
