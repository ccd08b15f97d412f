"""Views for `@durable-streams/tanstack-ai-transport`: one session stream for the whole chat, which stays open."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ..dialects.agui import TanStackTranslator
from ..feeds import FeedSource
from ..models import Chat
from ..permissions import permission
from . import absent
from .access import user_of
from .base import ChatViews
from .pointers import read
from .requests import InvalidRequest, TanStackBody, checked_id, parse


class TanStackChat(ChatViews):
    """A chat for `durableStreamConnection({sendUrl: "{route}?id=…", readUrl: "{route}/{id}/stream"})`.

    The last message once more, after its answer is done, asks for another answer in its place. Its text may have been
    edited.
    """

    makes_again = "newest"

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """See `ChatViews`. The id of the chat is in the query."""
        chat_id = checked_id(request.GET.get("id", ""))
        body = parse(request.body, TanStackBody)
        messages = [message.message() for message in body.messages]
        if messages[-1].role != "user":
            raise InvalidRequest("The last message is not the user's.")
        chat_request = await self.chat_request(request, chat_id, messages)
        await self.begin(chat_request)
        absent.tell(chat_request.path)
        return HttpResponse(status=HTTPStatus.ACCEPTED)

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """Respond with the chunks of the whole chat, by the Durable Streams Protocol.

        A page reads before it writes. A chat that is not there yet is empty, and is not created by that.
        """

        def source_of(chat: Chat) -> tuple[Hashable, FeedSource]:
            source = FeedSource(chat.stream, "-1", "", partial(TanStackTranslator, chat_id))
            return (chat.pk, "tanstack", chat_id), source  # the chunks have the id

        find = partial(self._chat, request, chat_id, "read")
        chat = await find()
        if chat is None:
            path = permission().path(await user_of(request), chat_id)
            return await absent.read(request, path, find, source_of)
        return await read(request, *source_of(chat))
