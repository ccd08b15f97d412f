"""What handlers return: a response, an event stream, or the work that leads to one of them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..protocol.caching import Caching
from ..protocol.messages import Header, Response

if TYPE_CHECKING:
    from .live_responses import SseReader


class EventStream:
    """An HTTP response that lives on: what it begins with, and the reader that makes its chunks."""

    __slots__ = ("caching", "headers", "reader", "status")

    sent = False

    def __init__(self, header_list: list[Header], reader: SseReader, caching: Caching) -> None:
        self.status = 200
        self.caching = caching
        self.headers = header_list
        self.reader = reader

    def with_headers(self, added: list[Header]) -> EventStream:
        """Return the response with some more headers."""
        self.headers += added
        return self


ANSWERS = (Response, EventStream)

Work = Coroutine[Any, Any, Response | EventStream]
"""What leads to a response, where that has to wait for something."""
