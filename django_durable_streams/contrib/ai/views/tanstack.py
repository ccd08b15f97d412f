"""Views for `@durable-streams/tanstack-ai-transport`: one session stream for the whole chat, which stays open."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ....models import Stream
from ..dialects.agui import TanStackTranslator
from ..feeds import FeedSource
from ..models import Chat, database
from .base import ChatViews
from .pointers import read
from .requests import InvalidRequest, TanStackBody, checked_id, parse


class TanStackChat(ChatViews):
    """A chat for `durableStreamConnection({sendUrl: "{route}?id=…", readUrl: "{route}/{id}/stream"})`."""

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`. The id of the chat is in the query."""
        chat_id = checked_id(request.GET.get("id", ""))
        body = parse(request.body, TanStackBody)
        messages = [message.message() for message in body.messages]
        if messages[-1].role != "user":
            raise InvalidRequest("The last message is not the user's.")
        await self.begin(await self.chat_request(request, chat_id, messages))
        return HttpResponse(status=HTTPStatus.ACCEPTED)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """Respond with the chunks of the whole chat, by the Durable Streams Protocol."""
        chat = await self._chat(request, chat_id, "read")
        if chat is None:
            chat = await self._create(request, chat_id)
        source = FeedSource(chat.stream, "-1", "", partial(TanStackTranslator, chat_id))
        return await read(request, (chat.pk, "tanstack", chat_id), source)  # the chunks have the id

    async def _create(self, request: HttpRequest, chat_id: str) -> Chat:
        """Create the chat of a page that reads before it writes."""
        wanted = await self.chat_request(request, chat_id, [])
        await self._authorize(wanted.user, wanted.path, "write")
        using = database()
        stream, _ = await Stream.objects.using(using).aensure(wanted.path, content_type="application/json")
        owner = str(wanted.user.pk) if getattr(wanted.user, "is_authenticated", False) else ""
        chat, _ = await Chat.objects.using(using).aget_or_create(stream=stream, defaults={"owner": owner})
        chat.stream = stream
        return chat
