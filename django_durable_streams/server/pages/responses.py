"""The responses of event sources: a request of a page becomes an event stream, or a refusal in a form that ends it.

Browsers treat refusals in their own ways. An `EventSource` gives up for good at every status but 200. Some libraries
try again for ever, whatever the status. So a refusal that passes is an empty event stream for an `EventSource`, which
then comes back. A refusal that lasts is a status, or the last event for a client that asks for it (`refusals=event`).

Knows no rendering.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import replace
from typing import NamedTuple

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.template.loader import get_template

from ...access.destinations import check_destination
from ...access.guard import current_guard
from ...engine import Engine, engine_for
from ...engine.characters import held_before
from ...engine.snapshot_reader import Snapshot
from ...protocol import arguments, headers, offsets, page_events, paths
from ...protocol.caching import Caching
from ...protocol.errors import DurableStreamsError, LiveModeUnsupported, MethodNotAllowed, StreamNotFound
from ...protocol.messages import Header, Response, error_response
from ...protocol.offsets import Offset, Sentinel
from ..answers import EventStream
from ..dispatch import complete, refuse
from ..django_requests import DjangoRequest
from ..django_responses import to_django
from ..response_policy import policy
from .options import EventSourceSettings
from .reader import PageReader
from .rendering import Renderer

ALLOWED_METHODS = "GET, HEAD, OPTIONS"

_PASSING = frozenset({429, 503})
"""The statuses of refusals that pass."""

_HEADERS: tuple[Header, ...] = (
    (headers.CONTENT_TYPE, b"text/event-stream"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events until its buffer is full
)


_found_templates: set[str] = set()


class SourceStream(NamedTuple):
    """The stream of an event source, as a view names it.

    Args:
        path: the path. None: the stream was removed.
        id: the id that the stream at the path must have, if it was loaded.
        using: alias of the database. None: the database to which the router has streams written.
    """

    path: str | None
    id: int | None = None
    using: str | None = None


class EventRequest(DjangoRequest):
    """A request of a page for the events of a stream."""

    __slots__ = ("settings", "source_stream")

    is_live = True

    def __init__(self, request: HttpRequest, stream: SourceStream, settings: EventSourceSettings) -> None:
        super().__init__(request, stream.path or "")
        self.path = stream.path or ""
        self.settings = settings
        self.source_stream = stream


async def respond(request: HttpRequest, stream: SourceStream, settings: EventSourceSettings) -> HttpResponseBase:
    """Return Django's response to the request of a page.

    Args:
        request: the request.
        stream: the stream with the messages.
        settings: the options of the event source.

    Raises:
        TemplateDoesNotExist: there is no template of the name `render`.
    """
    if isinstance(settings.render, str) and settings.render not in _found_templates:
        await sync_to_async(get_template)(settings.render)
        _found_templates.add(settings.render)
    try:
        event_request = EventRequest(request, stream, settings)
    except DurableStreamsError as error:
        return to_django(request, refuse(error))
    return to_django(request, await complete(event_request, _respond(event_request)))


async def _respond(request: EventRequest) -> Response | EventStream:
    if request.method == "OPTIONS":
        return policy().cors.preflight(request)
    try:
        return await _admit_and_follow(request)
    except DurableStreamsError as error:
        return _refusal(request, error)


async def _admit_and_follow(request: EventRequest) -> Response | EventStream:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("An event source answers GET.", ((headers.ALLOW, ALLOWED_METHODS.encode("ascii")),))
    last_id = request.header(headers.LAST_EVENT_ID)
    if last_id == page_events.END_ID:
        return Response(204, [])
    stream = request.source_stream
    if stream.path is None:
        raise StreamNotFound("The stream was deleted.")
    check_destination(request)
    if not request.can_stream:
        raise LiveModeUnsupported(
            "This server runs under WSGI and cannot hold an event stream open. Deploy under ASGI, or poll the stream."
        )
    if request.settings.check_permissions:
        await _admit(request)
    engine = engine_for(stream.using)
    snapshot = await engine.read(paths.validate_again(request.path), _start(request, last_id))
    if stream.id not in (None, snapshot.info.id):
        raise StreamNotFound("The stream was deleted, and there is another one at its path.")
    engine.renew(snapshot.info)
    if request.method == "HEAD":
        return Response(200, [*_HEADERS])
    return await _follow(request, engine, snapshot)


async def _admit(request: EventRequest) -> None:
    guard = current_guard()
    if guard is not None:
        if guard.needs_identity:
            request.caller = await sync_to_async(guard.identities.from_request)(request.source)
        await guard.admit(request)


def _start(request: EventRequest, last_id: str | None) -> Offset | Sentinel:
    """Return where a client begins: after its last event, at the offset that it names, or where the page begins."""
    offset = request.parameter("offset")
    if last_id:
        return offsets.decode(last_id)
    return arguments.offset(request.settings.offset) if offset is None else offsets.decode(offset)


async def _follow(request: EventRequest, engine: Engine, snapshot: Snapshot) -> EventStream:
    position = snapshot.position - len(await held_before(engine, snapshot))
    snapshot = replace(snapshot, position=position, segment=None)  # other requests share the original
    settings = request.settings
    renderer = Renderer(settings, request.source, copy_context()) if settings.per_request else None
    slot = engine.live_reader_limit.acquire()
    reader = PageReader(engine, snapshot, settings, renderer, slot, request.grant)
    return EventStream([*_HEADERS], reader, Caching.NEVER)


def _refusal(request: EventRequest, error: DurableStreamsError) -> Response:
    """Return the response to a client that is refused, in the form that ends its attempts, or lets it try again."""
    try:
        wants_event = page_events.wants_refusal_event(request.parameter(page_events.REFUSALS), error)
    except DurableStreamsError as invalid:
        return error_response(invalid)
    body = b""
    if wants_event:
        body = page_events.encode_refusal(request.settings.end_event, error)
    elif error.status in _PASSING and request.headers.get(b"accept") == b"text/event-stream":
        seconds = next((int(value) for name, value in error.headers if name == b"retry-after"), 1)
        body = page_events.encode_retry(max(float(seconds), request.settings.retry))
    return Response(200, [*_HEADERS], body) if body else error_response(error)
