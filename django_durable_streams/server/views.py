"""The Django views: the entry point that works on every server, behind the project's middleware.

Knows no operations, and nothing of how Django's requests and responses are made.
"""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from ..access.guard import current_guard
from ..protocol.errors import DurableStreamsError
from ..runtime import tracing
from . import request_numbers
from .dispatch import refuse, respond
from .django_requests import DjangoRequest
from .django_responses import to_django
from .non_atomic import never_atomic
from .request_threads import release_thread
from .url_prefix import check_urls


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(never_atomic, name="dispatch")
class StreamView(View):
    """Serves the stream at `stream_path`, the same under ASGI and, but for SSE, under WSGI."""

    async def dispatch(self, request: HttpRequest, stream_path: str = "") -> HttpResponseBase:  # type: ignore[override]
        """Answer a request with any method. The handlers refuse unknown methods."""
        request.get_host()  # raises the error that Django answers with 400, also without CommonMiddleware
        stream_request = None
        try:
            stream_request = DjangoRequest(request, stream_path)
            tracing.start(stream_request)
            check_urls()
            guard = current_guard()
            if guard is not None and guard.needs_identity:
                stream_request.caller = await sync_to_async(guard.identities.from_request)(request)
            if isinstance(request, ASGIRequest):
                release_thread()
            response = await respond(stream_request)
        except (DurableStreamsError, ImproperlyConfigured) as error:
            response = refuse(error)
        request_numbers.count(request_numbers.urls, stream_request, response.status)
        answer = to_django(request, response)
        if stream_request is not None and stream_request.is_unfinished and _may_close(request):
            answer["Connection"] = "close"
        return answer


def _may_close(request: HttpRequest) -> bool:
    """Return whether a view may close the connection: not under WSGI, and not in HTTP/2."""
    return isinstance(request, ASGIRequest) and str(request.scope.get("http_version", "")).startswith("1")


stream_view = StreamView.as_view()
