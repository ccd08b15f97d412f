"""The live tail of a stream's page: what is appended elsewhere, as soon as the server hears of it.

Under ASGI a request waits in the hub, as a long-poll by the protocol does, and holds no thread while it does. The end
of a wait says no more than to ask again: the middleware judges a request when it comes, and by the end of a wait its
user may be logged out, or may have lost the permission. Under WSGI a request is answered at once; the page asks again a
little later.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string

from ..api import transactions
from ..engine import engine_for
from ..models import Stream
from ..protocol.errors import DurableStreamsError
from ..server.long_poll import LongPoll
from ..server.non_atomic import never_atomic
from ..server.request_threads import release_thread
from ..store.stream_info import StreamInfo
from .detail_views import PAGE_BYTES, DetailViews, message_page, position
from .states import State


class NothingNew(HttpResponse):
    """Nothing has come to a stream: it still is as `info` says."""

    status_code = 204

    def __init__(self, info: StreamInfo) -> None:
        super().__init__()
        self.info = info


class LiveTailView(DetailViews):
    """Answers the script of a stream's page."""

    @property
    def tail_view(self) -> Any:
        """The view, which is asynchronous whatever the server: Django runs it under WSGI too."""
        # The admin's own wrapper, which checks who is there and sends others to log in, takes synchronous views only.
        look = sync_to_async(self.admin_site.admin_view(self._news))

        @never_atomic
        async def tail(request: HttpRequest, object_id: str) -> HttpResponse:
            response: HttpResponse = await look(request, object_id)
            if isinstance(response, NothingNew) and isinstance(request, ASGIRequest):
                await self._wait(response.info)
            return response

        return tail

    def _news(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return what a stream has past a position, or that there is nothing (204)."""
        stream = self.get_object(request, object_id)
        if not self.may(request, "view", stream):
            raise PermissionDenied
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        info = None if stream is None else self.info(stream)
        if stream is None or info is None:
            raise Http404
        transactions.renew(info, self.alias)  # who follows a stream is a reader like any other
        start = position(request.GET.get("from", ""), info, self.alias)
        if start > info.tail:
            raise Http404  # the page shows what the database has lost
        if start == info.tail and not info.closed:
            return NothingNew(info)
        return JsonResponse(self._describe(request, stream, info, start))

    def _describe(self, request: HttpRequest, stream: Stream, info: StreamInfo, start: int) -> dict[str, Any]:
        # Who is far behind wants to see what happens now.
        is_far = info.tail - start > PAGE_BYTES
        found = self.messages_before(info, info.tail) if is_far else self.messages_after(info, start)
        page = message_page(info, [message for message in found if message.start >= start], self.alias)
        state = State.CLOSED if info.closed else State.OPEN
        context = {"page": page, "stream": stream, "opts": self.opts, "may_fork": self.may(request, "add", stream)}
        request.current_app = self.admin_site.name
        return {
            "html": render_to_string("admin/durable_streams/stream/messages.html", context, request),
            "count": len(page.messages),
            "position": page.end,
            "skipped": bool(page.messages) and page.start > start,
            "more": page.end < info.tail,
            "closed": info.closed,
            "state": state.badge(),
            "size": filesizeformat(info.tail),
            "offset": info.token(info.tail),
        }

    async def _wait(self, info: StreamInfo) -> None:
        """Wait until a stream has something more, is closed, or has gone, or until time is up."""
        release_thread()
        engine = engine_for()
        try:
            view = await engine.follow(info, info.tail)
            if view.segment is None and not view.closed:
                await LongPoll(engine, view, lambda *_: False).wait()
        except DurableStreamsError:
            pass  # the next request is told what it is
