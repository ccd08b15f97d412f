"""Turns our responses into Django's, and sends event streams through Django. Knows no operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from ..protocol.messages import Response
from .answers import EventStream
from .request_threads import release_thread
from .slow_clients import SlowClientGuard
from .unsent_responses import call_if_unsent


def to_django(request: HttpRequest, response: Response | EventStream) -> HttpResponseBase:
    """Return Django's response to a request, which no middleware of Django's may change or keep."""
    if request.method == "HEAD" and isinstance(response, Response):
        response.body = b""
    # ConditionalGetMiddleware would compare the tags again, and answer 304 without the protocol's headers.
    request.META.pop("HTTP_IF_NONE_MATCH", None)
    # UpdateCacheMiddleware would answer later reads itself, without later appends.
    request._cache_update_cache = False  # type: ignore[attr-defined]
    answer: HttpResponseBase
    if isinstance(response, EventStream):
        call_if_unsent(response.reader.close)
        answer = StreamingHttpResponse(_events(response), status=response.status)
        # GZipMiddleware would collect events. It skips responses that have an encoding.
        answer["Content-Encoding"] = "identity"
    else:
        answer = HttpResponse(response.body, status=response.status)
    del answer["Content-Type"]  # Django's default, which an empty response must not have
    for name, value in response.headers:
        answer[name.decode("ascii")] = value.decode("latin-1")
    return answer


async def _events(response: EventStream) -> AsyncIterator[bytes]:
    release_thread()  # the thread that middleware has used on the way back
    reader, client = response.reader, SlowClientGuard()
    reader.on_stopping = client.hurry
    reader.on_cut_off = client.give_up
    task = asyncio.current_task()
    if task is not None:
        # Where the client leaves, Django does not close this generator. The garbage collector would, some time later.
        task.add_done_callback(lambda _: client.end_chunk())
        task.add_done_callback(lambda _: reader.close())
    async with aclosing(client.pieces(reader.chunks())) as pieces:
        async for piece in pieces:
            yield piece
    if reader.is_cut_off:
        raise asyncio.CancelledError  # Django ends the response without its end, as where the client has left
