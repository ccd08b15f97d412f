"""Turns our responses into Django's, and sends event streams through Django. Knows no operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from ..conf import config
from ..protocol.messages import ENDING_SECONDS, Response
from .answers import EventStream
from .request_threads import release_thread
from .response_memory import PIECE_BYTES, Transfer, memory


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
    reader, client = response.reader, ClientDeadlines()
    reader.on_stopping = client.hurry
    reader.on_cut_off = client.give_up
    task = asyncio.current_task()
    if task is not None:
        # Where the client leaves, Django does not close this generator. The garbage collector would, some time later.
        task.add_done_callback(lambda _: client.end_chunk())
        task.add_done_callback(lambda _: reader.close())
    async with aclosing(reader.chunks()) as chunks:
        async for chunk in chunks:
            client.begin_chunk(chunk)
            try:
                for first in range(0, len(chunk), PIECE_BYTES):
                    client.begin_piece()
                    yield chunk[first : first + PIECE_BYTES]
                    client.end_piece()
            finally:
                client.end_chunk()
    if reader.is_cut_off:
        raise asyncio.CancelledError  # Django ends the response without its end, as where the client has left


class ClientDeadlines:
    """Ends the task of a response whose client takes no data. Django does not ask for a piece before one is sent."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = config().send_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._transfer: Transfer | None = None

    def begin_chunk(self, chunk: bytes) -> None:
        """A chunk is about to be sent, piece by piece."""
        self._transfer = Transfer(chunk, self._loop, self.give_up)
        memory.add(self._transfer)

    def begin_piece(self) -> None:
        """The current task is about to send a piece."""
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(self._seconds, self.give_up)

    def end_piece(self) -> None:
        """The piece is sent, or never will be."""
        if self._timer is not None:
            self._timer.cancel()
        # The task refers to the response, and so to this object.
        self._timer = self._task = None
        if self._transfer is not None:
            memory.report_progress(self._transfer)

    def end_chunk(self) -> None:
        """The chunk is sent, or never will be."""
        self.end_piece()
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            memory.remove(transfer)

    def hurry(self) -> None:
        """The server is about to end: do not wait long for a client that takes no data."""
        self._seconds = min(self._seconds, ENDING_SECONDS)
        deadline = self._loop.time() + self._seconds
        if self._timer is not None and deadline < self._timer.when():  # a server that ends says so again and again
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self.give_up)

    def give_up(self) -> None:
        """End the task, if it waits for its client."""
        task = self._task
        self.end_piece()
        if task is not None:
            task.cancel()
