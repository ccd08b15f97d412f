"""Views for `DefaultChatTransport` of Vercel's AI SDK: the answer is the response, and a reload resumes it."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ....engine.live_reader_limit import LiveReaderSlot
from ..dialects.vercel import DONE, HEADER, VERSION, VercelTranslator, ui_part
from ..history import ChatMessage
from ..models import Run
from .base import ChatViews, chunk_events, event_stream, live_reader_slot, run_source
from .requests import InvalidRequest, VercelBody, parse


class VercelChat(ChatViews):
    """A chat for `useChat`. With `resume: true` a reload goes on with the answer, from its beginning.

    The end of the connection does not stop the answer. `stop()` of the page must also POST to `{route}/{id}/stop`.
    """

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`."""
        with live_reader_slot() as slot:
            run, chat_id = await self.begin_vercel(request)
            route = quote(request.path.rpartition("/")[2])
            return self.response(request, run, slot, f"./{route}/{quote(chat_id, safe='')}/stream")

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """See `ChatViews`. `?answer=` names the run of one answer, which may have ended."""
        wanted = request.GET.get("answer", "")
        run = await self._answer(request, chat_id, wanted) if wanted else await self._active(request, chat_id, "read")
        if run is None:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        with live_reader_slot() as slot:
            return self.response(request, run, slot, "./stream")

    async def _answer(self, request: HttpRequest, chat_id: str, run_id: str) -> Run:
        try:
            id = uuid.UUID(run_id)
        except ValueError as error:
            raise InvalidRequest("The id of an answer is a UUID.") from error
        return await self._run(request, chat_id, id)

    def describe(self, message: ChatMessage) -> dict[str, Any]:
        """See `ChatViews`. The parts are those of a `UIMessage`, so `useChat` takes the message as it is."""
        return {**super().describe(message), "parts": [ui_part(part) for part in message.parts]}

    async def begin_vercel(self, request: HttpRequest) -> tuple[Run, str]:
        """Start the answer to a body of the AI SDK, and return its run and the id of the chat."""
        body = parse(request.body, VercelBody)
        messages = [message.message() for message in body.messages]
        chat_request = await self.chat_request(request, body.id, messages, is_rewind=body.is_rewind)
        return await self.begin(chat_request), body.id

    def response(self, request: HttpRequest, run: Run, slot: LiveReaderSlot, place: str) -> HttpResponseBase:
        """Respond with the whole answer of a run.

        Args:
            request: the request.
            run: the run.
            slot: see `event_stream`.
            place: the URL of the chat's `stream`, relative to that of the request. A proxy may have cut a prefix off.
        """
        events = chunk_events((run.pk, "vercel"), run_source(run, VercelTranslator), DONE)
        headers = {HEADER: VERSION, "Content-Location": f"{place}?answer={run.pk}"}
        return event_stream(request, events, slot, **headers, Access_Control_Expose_Headers="Content-Location")
