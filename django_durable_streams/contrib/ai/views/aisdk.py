"""Views for `@durable-streams/aisdk-transport`: a response says where the answer is, and the client reads it there."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import URLPattern, path

from ..dialects.vercel import VercelTranslator
from ..models import Run
from .base import run_source
from .pointers import read
from .vercel import VercelChat


class DurableTransportChat(VercelChat):
    """A chat for `createDurableChatTransport`. The client reads the answer by the protocol, and continues anywhere."""

    @classmethod
    def urls(cls, route: str, *, name: str = "") -> list[URLPattern]:
        """See `ChatViews`."""
        views = cls()
        read_view = views._view(views.read, "GET")
        read_name = f"{name or cls.__name__.lower()}-answer"
        return [
            *super().urls(route, name=name),
            path(f"{route}/<str:chat_id>/answers/<uuid:run_id>", read_view, name=read_name),
        ]

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`."""
        run, chat_id = await self.begin_vercel(request)
        return _pointer(f"{request.path}/{quote(chat_id)}", run, HTTPStatus.CREATED)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """See `ChatViews`."""
        run = await self._active(request, chat_id, "read")
        if run is None:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        return _pointer(request.path.removesuffix("/stream"), run, HTTPStatus.OK)

    async def read(self, request: HttpRequest, chat_id: str, run_id: uuid.UUID) -> HttpResponseBase:
        """Respond with the chunks of an answer, by the Durable Streams Protocol."""
        run = await self._run(request, chat_id, run_id)
        return await read(request, (run.pk, "vercel"), run_source(run, VercelTranslator))


def _pointer(chat_url: str, run: Run, status: HTTPStatus) -> HttpResponseBase:
    url = f"{chat_url}/answers/{run.pk}"
    response = JsonResponse({"streamUrl": url}, status=status)
    response["Location"] = url
    response["Access-Control-Expose-Headers"] = "Location"
    return response
