"""What the views of all dialects share: who may use the chat, the start of an answer, and errors as clients read them.

A chat is a subclass with one method, `answer`. Its views work under ASGI and WSGI, behind the project's middleware. So
Django's CSRF rules hold for them: pages send the CSRF token, or the project exempts the views.
"""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, Literal

import msgspec
from asgiref.sync import sync_to_async
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.http.request import RawPostDataException
from django.urls import URLPattern, path

from ....conf import config
from ....engine import engine_for
from ....engine.live_reader_limit import LiveReaderSlot
from ....protocol.errors import DurableStreamsError
from ....runtime import background
from ....runtime.log_once import LogOnce
from ....server.non_atomic import never_atomic
from ....server.unsent_responses import call_if_unsent
from ..answers import Answer, AnswerRunning, StartOptions, start_checked
from ..events import Event, Message, Rewind
from ..feeds import FeedSource, opened
from ..history import ChatMessage, ChatSnapshot
from ..models import Chat, Run, database
from ..permissions import Action, permission
from ..rows import MakesAgain
from ..sources import Source
from .access import Refused, authorized, check_again, create_branch, user_of
from .event_body import EventBody, EventResponse
from .requests import BranchBody, InvalidRequest, checked_id, parse, parse_whole

logger = logging.getLogger(__name__)

ViewFunction = Callable[..., Awaitable[HttpResponseBase]]

WARNING_SECONDS = 60.0

_failures = LogOnce(WARNING_SECONDS)

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients ignore: traffic for proxies that cut idle connections."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for an answer.

    Attributes:
        http: Django's request.
        user: its user, who may be anonymous.
        chat_id: the id of the chat, as the client has it.
        path: the path of the chat's stream.
        messages: the messages that the client has sent. The chat's own are in its stream, and `AnswerContext.messages`
            has them.
        is_rewind: whether what follows the last message does not count any more: it was edited, or the answer is to be
            made again.
        body: the whole body as JSON, for fields of the project.
        run_id: the id that the client has given to the run. Empty: none.
    """

    http: HttpRequest
    user: Any
    chat_id: str
    path: str
    messages: Sequence[Message]
    is_rewind: bool = False
    body: Any = None
    run_id: str = ""

    @property
    def text(self) -> str:
        """The text of the last message."""
        return "".join(getattr(part, "text", "") for part in self.messages[-1].parts)


class ChatViews:
    """The views of a chat. A subclass has the method `answer`."""

    if_active: ClassVar[Literal["join", "refuse"]] = "refuse"
    """What a further message gets while an answer is being written: the running answer, or a 409."""

    makes_again: ClassVar[MakesAgain] = "never"
    """Whether a client asks for another answer by its last message once more. See `rows.StartRequest`."""

    def answer(self, request: ChatRequest) -> Answer | Source | Awaitable[Answer | Source]:
        """Return what to answer with: a source, or an `Answer`. It may be `async def`. Else it runs in a thread.

        An exception of this method is a 500, before anything is stored. That of the source ends the answer as failed.
        """
        raise NotImplementedError

    @classmethod
    def urls(cls, route: str, *, name: str = "") -> list[URLPattern]:
        """Return the URL patterns of the chat.

        Args:
            route: where it is, such as `api/chat`, without a slash at the end.
            name: the beginning of the patterns' names. Empty: that of the class in lower case.
        """
        views = cls()
        prefix = name or cls.__name__.lower()
        return [
            path(route, views._view(views.send, "POST"), name=f"{prefix}-send"),
            path(f"{route}/<str:chat_id>/stream", views._view(views.resume, "GET"), name=f"{prefix}-resume"),
            path(f"{route}/<str:chat_id>/stop", views._view(views.stop, "POST"), name=f"{prefix}-stop"),
            path(f"{route}/<str:chat_id>/messages", views._view(views.messages, "GET"), name=f"{prefix}-messages"),
            path(f"{route}/<str:chat_id>/branch", views._view(views.branch, "POST"), name=f"{prefix}-branch"),
        ]

    async def send(self, request: HttpRequest) -> HttpResponseBase:
        """Store the user's message, start the answer, and respond with it."""
        raise NotImplementedError

    async def resume(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """Respond with the answer that is being written, from its beginning, or with 204."""
        raise NotImplementedError

    async def stop(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """Stop the answer that is being written. Respond with 204, also if there is none."""
        run = await self._active(request, chat_id, "stop")
        if run is not None:
            await run.astop()
        return HttpResponse(status=HTTPStatus.NO_CONTENT)

    async def messages(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """Respond with the messages of the chat, and with the offset from which its stream goes on."""
        chat = await self._chat(request, chat_id, "read")
        snapshot = ChatSnapshot([], "-1") if chat is None else await sync_to_async(chat.snapshot)()
        messages = [self.describe(message) for message in snapshot.messages]
        answer, next_offset = snapshot.answer, snapshot.next_offset
        response = JsonResponse({"messages": messages, "answer": answer, "next_offset": next_offset})
        response["Stream-Next-Offset"] = next_offset
        return response

    def describe(self, message: ChatMessage) -> dict[str, Any]:
        """Return a message as `messages` shows it: the fields of its struct."""
        described: dict[str, Any] = msgspec.to_builtins(message)
        return described

    async def branch(self, request: HttpRequest, chat_id: str) -> HttpResponseBase:
        """Create a chat with the messages before one of them, and respond with 201 and its id."""
        body = parse(request.body, BranchBody)
        user = await user_of(request)
        new_id = body.id or uuid.uuid4().hex
        path = permission().path(user, checked_id(chat_id))
        await create_branch(request, user, path, permission().path(user, new_id), body.before)
        return JsonResponse({"id": new_id}, status=HTTPStatus.CREATED)

    # For the dialects.

    async def begin(self, request: ChatRequest) -> Run:
        """Start the answer to a request, and return its run.

        Raises:
            Refused: the user may not write in the chat, or an answer is being written.
        """
        allowed = (await authorized(request.http, request.user, request.path, "write")).chat
        made = self.answer(request) if _is_async(self.answer) else await sync_to_async(self.answer)(request)
        answer: Any = await made if inspect.isawaitable(made) else made
        return await sync_to_async(self._start)(request, answer, allowed)

    def _start(self, request: ChatRequest, answer: Answer | Source, allowed: Chat | None) -> Run:
        last = request.messages[-1]
        chat = Chat.at(request.path)
        turns: list[Event] = [last] if chat is not None else [*request.messages]
        if chat is not None and request.is_rewind:
            turns.insert(0, Rewind(after=last.id))
        if last.role == "assistant":  # results of tools that the page has run: the same message goes on
            answer = answer if isinstance(answer, Answer) else Answer(answer)
            answer = Answer(answer.source, answer.arguments, answer.on_lost, answer.message_id or last.id)
        elif request.run_id:  # so that the same request again is told from the wish for another answer
            id = f"msg-{uuid.uuid5(uuid.NAMESPACE_OID, f'{request.run_id} {last.id}').hex}"
            answer = answer if isinstance(answer, Answer) else Answer(answer)
            answer = Answer(answer.source, answer.arguments, answer.on_lost, answer.message_id or id)
        user = request.user if getattr(request.user, "is_authenticated", False) else None
        try:
            # A client sends a request again if its response was lost.
            once = not request.is_rewind and last.role == "user"
            check = partial(check_again, request.http, request.user, request.path, allowed)
            return start_checked(
                request.path, answer, StartOptions(user, turns, self.if_active, once, check, self.makes_again)
            )
        except AnswerRunning as error:
            raise Refused(HTTPStatus.CONFLICT, str(error)) from error

    async def chat_request(
        self,
        http: HttpRequest,
        chat_id: str,
        messages: Sequence[Message],
        *,
        is_rewind: bool = False,
        run_id: str = "",
    ) -> ChatRequest:
        """Return a parsed request."""
        user = await user_of(http)
        body = parse_whole(http.body)
        return ChatRequest(http, user, chat_id, permission().path(user, chat_id), messages, is_rewind, body, run_id)

    async def _active(self, request: HttpRequest, chat_id: str, action: Action) -> Run | None:
        user = await user_of(request)
        return (await authorized(request, user, permission().path(user, checked_id(chat_id)), action)).run

    async def _chat(self, request: HttpRequest, chat_id: str, action: Action) -> Chat | None:
        """Return a chat that the user may use, or None if the user may know that there is none.

        Raises:
            Refused: the user may not use the chat, whether or not there is one.
        """
        user = await user_of(request)
        return (await authorized(request, user, permission().path(user, checked_id(chat_id)), action)).chat

    async def _run(self, request: HttpRequest, chat_id: str, run_id: uuid.UUID) -> Run:
        """Return a run of a chat that the user may read, whether or not it has ended.

        Raises:
            Refused: the user may not read the chat, or there is no such run.
        """
        chat = await self._chat(request, chat_id, "read")
        run = None if chat is None else await chat.runs.filter(pk=run_id).afirst()
        if chat is None or run is None:
            raise Refused(HTTPStatus.NOT_FOUND, "The chat has no such answer.")
        run.chat = chat
        return run

    def _view(self, handle: ViewFunction, method: str) -> Callable[..., Any]:
        async def view(request: HttpRequest, **arguments: Any) -> HttpResponseBase:
            if request.method != method:
                response: HttpResponseBase = error_response(HTTPStatus.METHOD_NOT_ALLOWED, f"Send a {method}.")
                response["Allow"] = method
                return response
            try:
                response = await handle(request, **arguments)
            except InvalidRequest as error:
                response = error_response(HTTPStatus.BAD_REQUEST, str(error))
            except RawPostDataException:  # a form with files, which the check of the CSRF token has read
                response = error_response(HTTPStatus.BAD_REQUEST, "The body is not JSON.")
            except RequestDataTooBig:
                message = "The body is larger than DATA_UPLOAD_MAX_MEMORY_SIZE allows."
                response = error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
            except Refused as error:
                response = error_response(error.status, str(error))
            except DurableStreamsError as error:
                response = error_response(error.status, str(error))
                for name, value in error.headers:
                    response[name.decode()] = value.decode()
            except (OperationalError, InterfaceError) as error:  # of the request's own connection
                if _failures.is_due():
                    logger.warning("A chat request could not use the database: %s", error)
                response = error_response(HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer. Try again.")
                response["Retry-After"] = "1"
            if "Cache-Control" not in response:
                response["Cache-Control"] = "no-store"
            return response

        view.chat_views = self  # type: ignore[attr-defined]  # for those who ask where a URL leads
        return never_atomic(view)


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function)


def error_response(status: int, message: str) -> JsonResponse:
    """Return an error as the clients of all dialects show it."""
    return JsonResponse({"error": message}, status=status)


def run_source(run: Run, translator: Callable[[], Any]) -> FeedSource:
    """Return what a feed reads for the answer of a run."""
    return FeedSource(run.chat.stream, run.start_offset, str(run.pk), translator)


async def chunk_events(key: object, source: FeedSource, end: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a run as Server-Sent Events without names, and an end if the run has ended."""
    try:
        with opened(key, source, timeout=config().sse_keep_alive) as reader:
            while (news := await reader.next()) is not None:
                yield news.as_events(end) or KEEP_ALIVE
    except DurableStreamsError as error:  # the response has begun, so its end without an end says it
        logger.info("The readers of an answer are cut off: %s", error)


def live_reader_slot() -> LiveReaderSlot:
    """Return a slot for a reader that waits. A request that starts an answer takes it before the start.

    Raises:
        ServiceUnavailable: the process has `MAX_LIVE_READERS` readers.
    """
    return engine_for(database()).live_reader_limit.acquire()


def event_stream(
    request: HttpRequest, events: AsyncGenerator[bytes, None], slot: LiveReaderSlot, **headers: str
) -> HttpResponseBase:
    """Return a response that streams events, under ASGI and WSGI. It releases the slot at its end."""
    body = EventBody(events) if isinstance(request, ASGIRequest) else background.iterate(events)
    response = EventResponse(body, slot)
    call_if_unsent(slot.release)
    response["Cache-Control"] = "no-cache"
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"  # GZipMiddleware would collect events
    for name, value in headers.items():
        response[name.replace("_", "-")] = value
    return response
