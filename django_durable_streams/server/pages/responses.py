"""The responses of event sources: a request of a page becomes an event stream, or a refusal in a form that ends it.

Browsers treat refusals in their own ways. An `EventSource` gives up for good at every status but 200. Some libraries
try again for ever, whatever the status. So a refusal that passes is an empty event stream for an `EventSource`, which
then comes back. A refusal that lasts is a status, or the last event for a client that asks for it (`refusals=event`).

Knows no rendering.
"""

from __future__ import annotations

from dataclasses import replace

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase

from ...access.guard import current_guard
from ...engine import Engine, engine_for
from ...engine.characters import held_before
from ...engine.snapshot_reader import Snapshot
from ...protocol import arguments, headers, offsets, page_events, paths
from ...protocol.browsers import check_destination
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

ALLOWED_METHODS = "GET, HEAD, OPTIONS"

_PASSING = frozenset({429, 503})
"""The statuses of refusals that pass."""

_HEADERS: tuple[Header, ...] = (
    (headers.CONTENT_TYPE, b"text/event-stream"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events until its buffer is full
)


class EventRequest(DjangoRequest):
    """A request of a page for the events of a stream."""

    __slots__ = ("settings", "stream_id")

    is_live = True

    def __init__(
        self, request: HttpRequest, path: str, settings: EventSourceSettings, stream_id: int | None = None
    ) -> None:
        super().__init__(request, path)
        self.path = path
        self.settings = settings
        self.stream_id = stream_id


async def respond(
    request: HttpRequest, path: str, settings: EventSourceSettings, stream_id: int | None = None
) -> HttpResponseBase:
    """Return Django's response to the request of a page.

    Args:
        request: the request.
        path: path of the stream.
        settings: the options of the event source.
        stream_id: id that the stream at the path must have.
    """
    try:
        event_request = EventRequest(request, path, settings, stream_id)
    except DurableStreamsError as error:
        return to_django(request, refuse(error))
    return to_django(request, await complete(event_request, _respond(event_request)))


async def _respond(request: EventRequest) -> Response | EventStream:
    if request.method == "OPTIONS":
        return policy().cors.preflight(request)
    try:
        return await _admit_and_begin(request)
    except DurableStreamsError as error:
        return _refusal(request, error)


async def _admit_and_begin(request: EventRequest) -> Response | EventStream:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("An event source answers GET.", ((headers.ALLOW, ALLOWED_METHODS.encode("ascii")),))
    last_id = request.header(headers.LAST_EVENT_ID)
    if last_id == page_events.END_ID:
        return Response(204, [])
    check_destination(request.headers)
    if not request.can_stream:
        raise LiveModeUnsupported(
            "This server runs under WSGI and cannot hold an event stream open. Deploy under ASGI, or poll the stream."
        )
    if request.settings.check_permissions:
        await _admit(request)
    engine = engine_for()
    snapshot = await engine.read(paths.validate_again(request.path), _start(request, last_id))
    if request.stream_id not in (None, snapshot.info.id):
        raise StreamNotFound("The stream was deleted, and there is another one at its path.")
    engine.renew(snapshot.info)
    if request.method == "HEAD":
        return Response(200, [*_HEADERS])
    return await _begin(request, engine, snapshot)


async def _admit(request: EventRequest) -> None:
    guard = current_guard()
    if guard is not None:
        request.caller = await sync_to_async(guard.identities.from_request)(request.source)
        await guard.admit(request)


def _start(request: EventRequest, last_id: str | None) -> Offset | Sentinel:
    """Return where a client begins: after its last event, at the offset that it names, or where the page begins."""
    offset = request.parameter("offset")
    if last_id:
        return offsets.decode(last_id)
    return arguments.offset(request.settings.offset) if offset is None else offsets.decode(offset)


async def _begin(request: EventRequest, engine: Engine, snapshot: Snapshot) -> EventStream:
    position = snapshot.position - len(await held_before(engine, snapshot))
    snapshot = replace(snapshot, position=position, segment=None)  # other requests share the original
    slot = engine.live_reader_limit.acquire()
    reader = PageReader(engine, snapshot, request.settings, request.source, slot, request.grant)
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
