"""The Django views: the entry point that works on every server, behind the project's middleware.

Turns Django's requests into ours, and our responses into Django's. It knows no operations.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from io import UnsupportedOperation
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from ..access.guard import current_guard
from ..access.identities import Identity
from ..conf import config
from ..protocol import headers
from ..protocol.errors import DurableStreamsError, IncompleteBody, LengthRequired
from ..protocol.messages import Header, Request, Response
from . import wsgi_paths
from .answers import EventStream
from .bodies import ArrivingBody, admitted_length, too_slow
from .dispatch import refuse, respond
from .hosts import script_name
from .non_atomic import never_atomic
from .request_threads import release_thread
from .slow_clients import PIECE_BYTES, SlowClientGuard


class _DjangoRequest(Request):
    """A request that has passed through Django's handler and middleware."""

    __slots__ = ("_request", "caller", "can_stream", "is_unfinished")

    def __init__(self, request: HttpRequest, path: str) -> None:
        self.can_stream = isinstance(request, ASGIRequest)
        if isinstance(request, ASGIRequest):
            header_list, query = _asgi_headers(request), _asgi_query(request)
        else:
            header_list, query = _wsgi_headers(request), request.META.get("QUERY_STRING", "").encode("latin-1")
            path = wsgi_paths.stream_path(request, path)
        super().__init__(request.method or "", path, query, header_list)
        self._request = request
        self.caller: Identity | None = None
        self.is_unfinished = False
        """Whether more of the body may arrive, which the server would take for the next request."""

    @property
    def scheme(self) -> str:
        return self._request.scheme or "http"

    @property
    def source(self) -> HttpRequest:
        return self._request

    def url(self) -> bytes:
        return self._request.build_absolute_uri(quote(self._outer_path())).encode("ascii")

    def root(self) -> str:
        return self._outer_path().removesuffix(self.path)

    def _outer_path(self) -> str:
        """Return the path that the client has sent. Under ASGI, `request.path` lacks the part that a proxy removes."""
        return script_name(self._request.META.get("SCRIPT_NAME")) + self._request.path_info

    async def read_body(self) -> bytes:
        arriving = self.arriving = ArrivingBody(self.headers, admitted_length(self.headers))
        read = self._reader()
        # Servers have deadlines for a read, and none for a client that sends one byte after another.
        deadline = time.monotonic() + config().receive_timeout
        try:
            while part := read(PIECE_BYTES):
                arriving.add(part)
                if time.monotonic() > deadline:
                    raise too_slow()
        except OSError as error:
            raise IncompleteBody("The connection was lost within the body. Send the request again.") from error
        self.is_unfinished = True
        body = arriving.whole()
        self.is_unfinished = False
        return body

    def _reader(self) -> Callable[[int], bytes]:
        """Return the function that reads the body.

        `request.body` does not serve: Django limits it to 2.5 MB and answers a longer body itself.

        Raises:
            LengthRequired: the server does not show the end of a body in chunks.
        """
        request = self._request
        if isinstance(request, WSGIRequest) and headers.TRANSFER_ENCODING in self.headers:
            # Without a length, Django assumes an empty body.
            if not request.environ.get("wsgi.input_terminated"):
                raise LengthRequired("This server cannot read a body in chunks. Send the body with a Content-Length.")
            read: Callable[[int], bytes] = request.environ["wsgi.input"].read
            return read
        if isinstance(request, ASGIRequest) or hasattr(request, "_body"):
            # The whole body is in a file or in memory, and a middleware may have read a part of it. Only the payload of
            # Django's test client cannot go back.
            with suppress(UnsupportedOperation):
                request._stream.seek(0)
        return request.read


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_atomic, name="dispatch")
class StreamView(View):
    """Serves the stream at `stream_path`, the same under ASGI and, but for SSE, under WSGI."""

    async def dispatch(self, request: HttpRequest, stream_path: str = "") -> HttpResponseBase:  # type: ignore[override]
        """Answer a request with any method. The handlers refuse unknown methods."""
        request.get_host()  # raises the error that Django answers with 400, also without CommonMiddleware
        stream_request = None
        try:
            stream_request = _DjangoRequest(request, stream_path)
            guard = current_guard()
            if guard is not None:
                stream_request.caller = await sync_to_async(guard.identities.from_request)(request)
            if isinstance(request, ASGIRequest):
                release_thread()
            response = await respond(stream_request)
        except DurableStreamsError as error:
            response = refuse(error)
        if request.method == "HEAD" and isinstance(response, Response):
            response.body = b""
        # ConditionalGetMiddleware would compare the tags again, and answer 304 without the protocol's headers.
        request.META.pop("HTTP_IF_NONE_MATCH", None)
        # UpdateCacheMiddleware would answer later reads itself, without later appends.
        request._cache_update_cache = False  # type: ignore[attr-defined]
        answer = _to_django(response)
        if stream_request is not None and stream_request.is_unfinished and _may_close(request):
            answer["Connection"] = "close"
        return answer


def _may_close(request: HttpRequest) -> bool:
    """Return whether a view may close the connection: not under WSGI, and not in HTTP/2."""
    return isinstance(request, ASGIRequest) and str(request.scope.get("http_version", "")).startswith("1")


stream_view = StreamView.as_view()


def _to_django(response: Response | EventStream) -> HttpResponseBase:
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


def _asgi_headers(request: ASGIRequest) -> list[Header]:
    return [(name.lower(), value) for name, value in request.scope["headers"]]


def _asgi_query(request: ASGIRequest) -> bytes:
    query: bytes | str = request.scope["query_string"]
    return query if isinstance(query, bytes) else query.encode()  # as Django's AsyncClient has it


def _wsgi_headers(request: HttpRequest) -> list[Header]:
    header_list = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in request.META.items()
        if name.startswith("HTTP_")
    ]
    for variable, name in (("CONTENT_TYPE", headers.CONTENT_TYPE), ("CONTENT_LENGTH", headers.CONTENT_LENGTH)):
        value = request.META.get(variable)
        if value:
            header_list.append((name, value.encode("latin-1")))
    return [(name, headers.split_repeated(name, value)) for name, value in header_list]
