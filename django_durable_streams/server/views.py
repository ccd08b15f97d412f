"""The door that works on every server: ordinary Django views, behind whatever middleware the project has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from ..access.callers import Caller
from ..access.guard import current_guard
from ..conf import config
from ..protocol import headers
from ..protocol.errors import DurableStreamsError
from .atomic import never_atomic
from .dispatch import refuse, respond
from .hosts import script_name
from .messages import EventStream, Header, Request, Response, check_length, too_large
from .threads import release_thread


class _DjangoRequest(Request):
    """A request that has come through Django's handler and middleware."""

    __slots__ = ("_request", "caller", "can_stream")

    def __init__(self, request: HttpRequest, path: str) -> None:
        self.can_stream = isinstance(request, ASGIRequest)
        if isinstance(request, ASGIRequest):
            found, query = _asgi_headers(request), _asgi_query(request)
        else:
            found, query = _wsgi_headers(request), request.META.get("QUERY_STRING", "").encode("latin-1")
        super().__init__(request.method or "", path, query, found)
        self._request = request
        self.caller: Caller | None = None

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
        """Return the path as clients have it. Under ASGI, `request.path` lacks what a proxy has taken off."""
        return script_name(self._request.META.get("SCRIPT_NAME")) + self._request.path_info

    async def read_body(self) -> bytes:
        # Not `request.body`: that has a limit of its own, of 2.5 MB, and raises an error that Django answers.
        check_length(self.headers.get(headers.CONTENT_LENGTH, b""))
        limit = config().max_append_bytes
        body = self._request.read(limit + 1)
        if len(body) > limit:
            raise too_large()
        return body


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_atomic, name="dispatch")
class StreamView(View):
    """Serves the stream at `stream_path`, the same under ASGI and, but for SSE, under WSGI."""

    async def dispatch(self, request: HttpRequest, stream_path: str = "") -> HttpResponseBase:  # type: ignore[override]
        """Answer any method; which of them streams know is for the handlers to say."""
        request.get_host()  # raises what Django answers with 400; CommonMiddleware may not be there to ask
        try:
            stream_request = _DjangoRequest(request, stream_path)
            guard = current_guard()
            if guard is not None:
                stream_request.caller = await sync_to_async(guard.callers.of_request)(request)
            if isinstance(request, ASGIRequest):
                release_thread()
            response = await respond(stream_request)
        except DurableStreamsError as error:
            response = refuse(error)
        if request.method == "HEAD" and isinstance(response, Response):
            response.body = b""
        # ConditionalGetMiddleware would compare the tags again, and answer with a 304 of its own without the
        # protocol's headers.
        request.META.pop("HTTP_IF_NONE_MATCH", None)
        # UpdateCacheMiddleware would answer later reads by itself, without what has been appended since.
        request._cache_update_cache = False  # type: ignore[attr-defined]
        return _to_django(response)


stream_view = StreamView.as_view()


def _to_django(response: Response | EventStream) -> HttpResponseBase:
    answer: HttpResponseBase
    if isinstance(response, EventStream):
        answer = StreamingHttpResponse(_events(response), status=response.status)
        # GZipMiddleware leaves alone what has an encoding; it would break an event stream into pieces of its own.
        answer["Content-Encoding"] = "identity"
    else:
        answer = HttpResponse(response.body, status=response.status)
    del answer["Content-Type"]  # Django's default; a response without content has none
    for name, value in response.headers:
        answer[name.decode("ascii")] = value.decode("latin-1")
    return answer


async def _events(response: EventStream) -> AsyncIterator[bytes]:
    release_thread()  # the one that middleware has used on the way back
    async with aclosing(response.reader.chunks()) as chunks:
        async for chunk in chunks:
            yield chunk


def _asgi_headers(request: ASGIRequest) -> list[Header]:
    return [(name.lower(), value) for name, value in request.scope["headers"]]


def _asgi_query(request: ASGIRequest) -> bytes:
    query: bytes | str = request.scope["query_string"]
    return query if isinstance(query, bytes) else query.encode()  # as Django's AsyncClient has it


def _wsgi_headers(request: HttpRequest) -> list[Header]:
    found = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in request.META.items()
        if name.startswith("HTTP_")
    ]
    for key, name in (("CONTENT_TYPE", headers.CONTENT_TYPE), ("CONTENT_LENGTH", headers.CONTENT_LENGTH)):
        value = request.META.get(key)
        if value:
            found.append((name, value.encode("latin-1")))
    return [(name, headers.split_repeated(name, value)) for name, value in found]
