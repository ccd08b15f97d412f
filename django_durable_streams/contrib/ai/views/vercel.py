"""Views for `DefaultChatTransport` of Vercel's AI SDK: the answer is the response, and a reload resumes it."""

from __future__ import annotations

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ....engine.live_reader_limit import LiveReaderSlot
from ..dialects.vercel import DONE, HEADER, VERSION, VercelTranslator
from ..models import Run
from .base import ChatViews, chunk_events, event_stream, live_reader_slot, run_source
from .requests import VercelBody, parse


class VercelChat(ChatViews):
    """A chat for `useChat`. With `resume: true` a reload goes on with the answer, from its beginning.

    The end of the connection does not stop the answer. `stop()` of the page must also POST to `{route}/{id}/stop`.
    """

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`."""
        with live_reader_slot() as slot:
            run, _ = await self.begin_vercel(request)
            return self.response(request, run, slot)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """See `ChatViews`."""
        run = await self._active(request, chat_id, "read")
        if run is None:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        with live_reader_slot() as slot:
            return self.response(request, run, slot)

    async def begin_vercel(self, request: HttpRequest) -> tuple[Run, str]:
        """Start the answer to a body of the AI SDK, and return its run and the id of the chat."""
        body = parse(request.body, VercelBody)
        messages = [message.message() for message in body.messages]
        chat_request = await self.chat_request(request, body.id, messages, is_rewind=body.is_rewind)
        return await self.begin(chat_request), body.id

    def response(self, request: HttpRequest, run: Run, slot: LiveReaderSlot) -> HttpResponseBase:
        """Respond with the whole answer of a run."""
        events = chunk_events((run.pk, "vercel"), run_source(run, VercelTranslator), DONE)
        return event_stream(request, events, slot, **{HEADER: VERSION})
