"""The lazy hinge: the only imports from the models to rooms below them, made at the first call.

The methods of `Stream` are delegates to `api.stream_methods` and `server.pages`, so that the tables know no code that
uses them. The types of the delegates come from here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..api.last_page import LastPage
    from ..api.stream_methods import Appended, ListingPage
    from ..api.tail import Page
    from ..api.writer import SyncWriter, Writer
    from ..api.writer_options import WriterOptions
    from ..server.pages.options import EventSourceOptions

__all__ = [
    "Appended",
    "EventSourceOptions",
    "LastPage",
    "ListingPage",
    "Page",
    "SyncWriter",
    "Writer",
    "WriterOptions",
    "api",
    "pages",
]


def api() -> Any:
    """Return the module with the functions behind the methods of `Stream` and its manager."""
    from ..api import stream_methods

    return stream_methods


def pages() -> Any:
    """Return the module with the functions behind the event sources of `Stream`."""
    from ..server.pages import sources

    return sources
