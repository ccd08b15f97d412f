"""Views for `@durable-streams/aisdk-transport`: a response says where the answer is, and the client reads it there."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import URLPattern
from django.urls import path as pattern

from .pointers import read
from .vercel import VercelChat, answer_feed, is_continued


class DurableTransportChat(VercelChat):
    """A chat for `createDurableChatTransport`. The client reads the answer by the protocol, and continues anywhere.

    An answer that goes on with an earlier message has two addresses: one for the client that has sent the message, and
    one with the earlier parts for a client that resumes, which drops what it has of the message.
    """

    @classmethod
    def urls(cls, route: str, *, name: str = "") -> list[URLPattern]:
        """See `ChatViews`."""
        views = cls()
        read_view = views._view(views.read, "GET")
        read_name, answer = f"{name or cls.__name__.lower()}-answer", f"{route}/<str:chat_id>/answers/<uuid:run_id>"
        return [
            *super().urls(route, name=name),
            pattern(answer, read_view, name=read_name),
            pattern(f"{answer}/whole", read_view, {"is_whole": True}, name=f"{read_name}-whole"),
        ]

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`."""
        run, chat_id = await self.begin_vercel(request)
        return _pointer(f"{request.path}/{chat_id}/answers/{run.pk}", HTTPStatus.CREATED)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """See `ChatViews`."""
        run = await self._active(request, chat_id, "read")
        if run is None:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        url = f"{request.path.removesuffix('/stream')}/answers/{run.pk}"
        return _pointer(f"{url}/whole" if is_continued(run) else url, HTTPStatus.OK)

    async def read(
        self, request: HttpRequest, chat_id: str, run_id: uuid.UUID, *, is_whole: bool = False
    ) -> HttpResponseBase:
        """Respond with the chunks of an answer, by the Durable Streams Protocol."""
        run = await self._run(request, chat_id, run_id)
        return await read(request, *answer_feed(run, is_whole=is_whole))


def _pointer(path: str, status: HTTPStatus) -> HttpResponseBase:
    url = quote(path)
    response = JsonResponse({"streamUrl": url}, status=status)
    response["Location"] = url
    response["Access-Control-Expose-Headers"] = "Location"
    return response
