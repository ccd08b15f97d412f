"""Views for `DefaultChatTransport` of Vercel's AI SDK: the answer is the response, and a reload resumes it."""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ....engine.live_reader_limit import LiveReaderSlot
from ..dialects.vercel import DONE, HEADER, VERSION, VercelTranslator, ui_part
from ..events import Start
from ..feeds import FeedSource
from ..history import ChatMessage, History
from ..models import Run, committed_events
from .base import ChatViews, chunk_events, event_stream, live_reader_slot, run_source
from .requests import InvalidRequest, VercelBody, parse

CONTINUES = "part=run"
"""The query of a run without the earlier parts of its message."""


class VercelChat(ChatViews):
    """A chat for `useChat`. With `resume: true` a reload goes on with the answer, from its beginning.

    The end of the connection does not stop the answer. `stop()` of the page must also POST to `{route}/{id}/stop`.
    """

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`."""
        with live_reader_slot() as slot:
            run, chat_id = await self.begin_vercel(request)
            route = quote(request.path.rpartition("/")[2])
            place = f"./{route}/{quote(chat_id, safe='')}/stream?answer={run.pk}"
            place += f"&{CONTINUES}" if is_continued(run) else ""  # the client has the earlier parts
            return self.response(request, run, slot, place)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """See `ChatViews`. `?answer=` names the run of one answer, which may have ended.

        A client that resumes drops what it has of the message, so it gets the earlier parts, too. One with
        `part=run` has them: it reads the rest of a response that was cut off.
        """
        wanted = request.GET.get("answer", "")
        run = await self._answer(request, chat_id, wanted) if wanted else await self._active(request, chat_id, "read")
        if run is None:
            return HttpResponse(status=HTTPStatus.NO_CONTENT)
        with live_reader_slot() as slot:
            if request.GET.get("part") == "run":
                return self.response(request, run, slot, f"./stream?answer={run.pk}&{CONTINUES}")
            return self.response(request, run, slot, f"./stream?answer={run.pk}", is_whole=is_continued(run))

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

    def response(
        self, request: HttpRequest, run: Run, slot: LiveReaderSlot, place: str, *, is_whole: bool = False
    ) -> HttpResponseBase:
        """Respond with the whole answer of a run.

        Args:
            request: the request.
            run: the run.
            slot: see `event_stream`.
            place: the URL of the same events, relative to that of the request. A proxy may have cut a prefix off.
            is_whole: whether the parts that the message had before the run come first.
        """
        events = chunk_events(*answer_feed(run, is_whole=is_whole), DONE)
        headers = {HEADER: VERSION, "Content-Location": place}
        return event_stream(request, events, slot, **headers, Access_Control_Expose_Headers="Content-Location")


def is_continued(run: Run) -> bool:
    """Return whether a run goes on with the message that it answers, as one with results of tools of the page."""
    return bool(run.turn_id == run.message_id)


def answer_feed(run: Run, *, is_whole: bool) -> tuple[Hashable, FeedSource]:
    """Return the key and the source of the feed of a run. See `VercelChat.response` for `is_whole`."""
    translator = partial(_translator_of_whole, run) if is_whole else VercelTranslator
    return (run.pk, "vercel", is_whole), run_source(run, translator)


async def _translator_of_whole(run: Run) -> VercelTranslator:
    """Return a translator that begins with the parts that the message of a run had before."""
    history = History()
    async with aclosing(committed_events(run.chat.stream)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Start) and event.run == str(run.pk):
                break
            history.add(event)
    message = history.find(run.message_id)
    return VercelTranslator([] if message is None else [*message.parts])
