"""Turns stored messages into events, in a thread: by a template, by a function of the project, or as they are.

A portion of messages is rendered at a time, and ends after some milliseconds. So a page that reads a long stream shares
the threads with all others, and a slow function delays nobody else's events for long. A message whose function fails
has no event: it is logged, and the readers go on. Knows no readers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any, NamedTuple

from django.db import Error
from django.http import HttpRequest
from django.template.loader import get_template

from ...protocol import content, page_events, text, values
from ...protocol.errors import ServiceUnavailable
from ...protocol.page_events import PageEvent
from ...protocol.segments import Segment
from ...runtime.log_once import LogOnce
from ...runtime.results import as_failure
from ...store.encoding import encode
from ...store.read import lineage
from ...store.stream_info import StreamInfo
from .options import EventSourceSettings, count_arguments

logger = logging.getLogger(__name__)

PORTION_SECONDS = 0.05
PORTION_MESSAGES = 500
PORTION_BYTES = 256 * 1024
"""From so much time, so many messages, or so many bytes of events on, a portion has no further message."""

WARNING_SECONDS = 60.0
"""Time between two log messages about the same function. It may fail for each message."""

_warnings = LogOnce(WARNING_SECONDS)


class StreamAt(NamedTuple):
    """The stream of a message, for templates and functions. Its attributes are those of `Stream`."""

    path: str
    content_type: str
    next_offset: str
    """The offset after the message, which is also the id of its event."""


class RenderedEvent(NamedTuple):
    """The event of one message."""

    data: bytes
    """The event as it is sent. Empty if the message has no event."""
    end: int
    """The position after the message."""
    event_id: str


class Portion(NamedTuple):
    """The events of consecutive messages."""

    events: list[tuple[int, RenderedEvent]]
    """With the position before each message."""
    end: int
    """The position up to which the messages are known. The last event may be before the beginning of a character."""


class Work(NamedTuple):
    """A stream's data from a position on, which may be inside the segment."""

    info: StreamInfo
    segment: Segment
    position: int
    final: bool
    """Whether no data can follow the segment."""
    using: str


class Renderer:
    """Makes the events of one event source. Synchronous, and safe to use from any thread.

    The language and the time zone are those of the request, or else those of the settings.

    Args:
        settings: the options of the event source.
        request: the request of the only reader, if the events depend on it.
        context: the context variables of that request.
    """

    def __init__(
        self, settings: EventSourceSettings, request: HttpRequest | None = None, context: Context | None = None
    ) -> None:
        self._settings = settings
        self._request = request
        self._context = context

    def render(self, work: Work) -> Portion:
        """Return the events of the next portion of messages.

        Raises:
            ServiceUnavailable: the database does not answer, which the ids of some forks need.
        """
        # A copy, so that a function which activates a language leaves nothing behind in the thread.
        context = Context() if self._context is None else self._context.copy()
        return context.run(self._render, work)

    def _render(self, work: Work) -> Portion:
        segment = work.segment
        try:
            info = lineage.around(work.info, work.using, work.position, segment.end)
        except Error as error:
            raise ServiceUnavailable("The database does not answer.") from error
        until = time.monotonic() + PORTION_SECONDS
        events: list[tuple[int, RenderedEvent]] = []
        position, size = work.position, 0
        for end, data in _messages(info.content_type, work):
            event_id = info.token(end)
            rendered = self._render_one(StreamAt(info.path, info.content_type, event_id), data)
            events.append((position, RenderedEvent(rendered, end, event_id)))
            position = end
            size += len(rendered)
            if len(events) >= PORTION_MESSAGES or size >= PORTION_BYTES or time.monotonic() >= until:
                return Portion(events, end)
        return Portion(events, segment.end)

    def _render_one(self, stream: StreamAt, data: bytes) -> bytes:
        try:
            event = self._event(stream, data)
            return b"" if event is None else page_events.encode(event, stream.next_offset)
        except BaseException as error:  # all readers wait for this thread
            self._report(stream, as_failure(error))
            return b""

    def _event(self, stream: StreamAt, data: bytes) -> PageEvent | None:
        settings = self._settings
        if settings.render is None and isinstance(settings.event, str):
            return PageEvent(_plain(stream.content_type, data), settings.event)
        message = values.decode(stream.content_type, data)
        arguments = message, stream, self._request
        if settings.render is None:
            result: Any = _plain(stream.content_type, data)
        elif isinstance(settings.render, str):
            context = {"message": message, "stream": stream}
            result = get_template(settings.render).render(context, self._request)
        else:
            result = self._call(settings.render, arguments)
        if result is None:
            return None
        event = result if isinstance(result, PageEvent) else PageEvent(_as_text(result))
        if not event.name:
            name = settings.event if isinstance(settings.event, str) else self._call(settings.event, arguments)
            event = PageEvent(event.data, name or "")
        if event.name == settings.end_event:
            raise ValueError(f"The name {event.name!r} is that of the last event, and would end all pages.")
        return event

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        count = count_arguments(function, per_request=self._settings.per_request)
        result = function(*arguments[:count])
        return asyncio.run(_wait_for(result)) if inspect.isawaitable(result) else result

    def _report(self, stream: StreamAt, error: Exception) -> None:
        render = self._settings.render
        name = render if isinstance(render, str) or render is None else getattr(render, "__qualname__", type(render))
        if _warnings.is_due(str(name)):
            logger.error(
                "The message before %s in %s has no event, because %s has failed. Its readers go on with the next one.",
                stream.next_offset,
                stream.path,
                name,
                exc_info=error,
            )


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _messages(content_type: str, work: Work) -> Iterator[tuple[int, bytes]]:
    """Yield the messages from a position on, each with the position after it.

    Where an append ends inside a character, its message ends before it. The next message begins with the character.
    """
    held = b""
    is_text = content.holds_text(content_type)
    for message in work.segment.messages_after(content_type, work.position):
        data = message.data
        if is_text:
            is_last = work.final and message.end == work.segment.end
            data, held = text.split(held + data, final=is_last)
            if not data:
                continue
        yield message.end - len(held), data


def _plain(content_type: str, data: bytes) -> str:
    """Return a stored message as a text."""
    if content.is_text(content_type):
        return text.decode(data)
    return b64encode(data).decode("ascii")


def _as_text(result: Any) -> str:
    if isinstance(result, str):
        return result
    if hasattr(result, "__html__"):
        return str(result.__html__())
    return encode("application/json", result)[:-1].decode()
