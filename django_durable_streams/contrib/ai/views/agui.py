"""Views for AG-UI, the protocol between agents and pages: the answer is the response."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ....engine.live_reader_limit import LiveReaderSlot
from ..dialects.agui import AGUITranslator
from ..models import Run
from .base import ChatViews, chunk_events, event_stream, live_reader_slot, run_source
from .requests import AGUIBody, InvalidRequest, parse


class AGUIChat(ChatViews):
    """A chat for `HttpAgent` of AG-UI. The thread is the chat.

    The same last message in a run with another id asks for another answer to it, in place of what followed it. Its text
    may have been edited.
    """

    makes_again = "any"

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`. Messages of other roles than user and assistant are for the agent only, and not stored."""
        body = parse(request.body, AGUIBody)
        messages = [message.message() for message in body.messages if message.role in ("user", "assistant")]
        if not messages:
            raise InvalidRequest("There is no message of the user.")
        with live_reader_slot() as slot:
            run = await self.begin(await self.chat_request(request, body.thread_id, messages, run_id=body.run_id))
            return self._response(request, run, (body.thread_id, body.run_id), slot)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """See `ChatViews`."""
        run = await self._active(request, chat_id, "read")
        if run is None:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        with live_reader_slot() as slot:
            return self._response(request, run, (chat_id, ""), slot)

    def _response(
        self, request: HttpRequest, run: Run, names: tuple[str, str], slot: LiveReaderSlot
    ) -> HttpResponseBase:
        """Respond with the answer of a run. `names` are those of the thread and the run for the client."""
        source = run_source(run, partial(AGUITranslator, *names))
        return event_stream(request, chunk_events((run.pk, "agui", *names), source, b""), slot)
