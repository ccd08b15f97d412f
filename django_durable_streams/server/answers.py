"""The results of handlers: a response, an event stream, or the work that leads to one of them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..protocol.caching import Caching
from ..protocol.messages import Header, Response

if TYPE_CHECKING:
    from .event_stream_reader import EventStreamReader


class EventStream:
    """An HTTP response that stays open.

    Args:
        header_list: the headers that it begins with.
        reader: makes its chunks.
        caching: what caches may do with it.
    """

    __slots__ = ("caching", "headers", "reader", "status")

    sent = False
    is_chunked = True

    def __init__(self, header_list: list[Header], reader: EventStreamReader, caching: Caching) -> None:
        self.status = 200
        self.caching = caching
        self.headers = header_list
        self.reader = reader

    def with_headers(self, added: list[Header]) -> EventStream:
        """Add headers, and return the response itself."""
        self.headers += added
        return self


ANSWERS = (Response, EventStream)

Work = Coroutine[Any, Any, Response | EventStream]
"""The rest of a request that has to wait for something. It returns the response."""
