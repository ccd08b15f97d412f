"""The live tail of a stream's page: it shows new messages as soon as they are committed.

Under ASGI a request waits in the hub, as a long-poll of the protocol does, and holds no thread. At the end of a wait
the response has no data, and the page sends a new request. The reason: middleware checks a request at its beginning,
and the user may have logged out or lost the permission since. Under WSGI each request is answered immediately, and the
page polls.
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


class NoNewData(HttpResponse):
    """There is no new data. `info` is the state of the stream."""

    status_code = 204

    def __init__(self, info: StreamInfo) -> None:
        super().__init__()
        self.info = info


class LiveTailView(DetailViews):
    """The view that the script of a stream's page requests."""

    @property
    def tail_view(self) -> Any:
        """The view. It is asynchronous on every server: Django can run it under WSGI, too."""
        # The admin's wrapper, which sends anonymous users to the login, takes synchronous views only.
        get_new_data = sync_to_async(self.admin_site.admin_view(self._new_data))

        @never_atomic
        async def tail(request: HttpRequest, object_id: str) -> HttpResponse:
            response: HttpResponse = await get_new_data(request, object_id)
            if isinstance(response, NoNewData) and isinstance(request, ASGIRequest):
                await self._wait(response.info)
            return response

        return tail

    def _new_data(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the messages after a position as JSON, or `NoNewData` (204)."""
        stream = self.get_object(request, object_id)
        if not self.may(request, "view", stream):
            raise PermissionDenied
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        info = None if stream is None else self.info(stream)
        if stream is None or info is None:
            raise Http404
        transactions.renew(info, self.alias)  # a user who follows a stream is a reader, and readers renew the TTL
        start = position(request.GET.get("from", ""), info, self.alias)
        if start > info.tail:
            raise Http404  # the database has lost data that the page still shows
        if start == info.tail and not info.closed:
            return NoNewData(info)
        return JsonResponse(self._describe(request, stream, info, start))

    def _describe(self, request: HttpRequest, stream: Stream, info: StreamInfo, start: int) -> dict[str, Any]:
        # A page that is far behind shows the newest messages, and says that some are missing.
        is_far_behind = info.tail - start > PAGE_BYTES
        new_messages = self.messages_before(info, info.tail) if is_far_behind else self.messages_after(info, start)
        page = message_page(info, [message for message in new_messages if message.start >= start], self.alias)
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
        """Wait until a stream has new data, is closed or is gone, or until the time of a long-poll is over."""
        release_thread()
        engine = engine_for()
        try:
            snapshot = await engine.follow(info, info.tail)
            if snapshot.segment is None and not snapshot.closed:
                await LongPoll(engine, snapshot, lambda *_: False).wait()
        except DurableStreamsError:
            pass  # the next request shows the error
