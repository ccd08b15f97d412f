"""Who may use a chat in the views. Knows neither bodies nor responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from django.http import HttpRequest

from ....access.access_request import AccessRequest
from ....access.refusals import dotted_path, log_refusal
from ....access.workers import ANSWER_SECONDS, no_answer
from ....protocol.errors import StreamExists
from ....runtime.thread_pool import ThreadPool
from ....server.django_requests import DjangoRequest
from ..errors import NoSuchMessage, UnfinishedAnswer
from ..lookups import ChatAndRun, lookups_of
from ..models import Chat, database
from ..permissions import Action, ask, is_in_memory, permission

P = ParamSpec("P")
T = TypeVar("T")

DENIED = "Permission denied."

THREADS = 4

_threads = ThreadPool("durable-streams-chats", THREADS)
"""For permissions that may use the database. A thread for each request, as Django would start, costs more than its
queries.

A start may wait for the row of its chat, and a branch reads the whole chat. So they have the threads of their requests,
and delay no other chat.
"""


class Refused(Exception):
    """The request is refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def user_of(request: HttpRequest) -> Any:
    """Return the user of a request, or None without Django's authentication."""
    auser = getattr(request, "auser", None)
    return None if auser is None else await auser()


async def authorized(request: HttpRequest, user: Any, path: str, action: Action) -> ChatAndRun:
    """Return the chat at a path with its active run, if the user may use it.

    Raises:
        Refused: the user may not use the chat, whether or not there is one.
        DurableStreamsError: the database does not answer.
    """
    chat_and_run = await lookups_of(database()).find(path)
    asked = permission()
    if is_in_memory(asked):
        is_allowed = ask(action, user, path, chat_and_run.chat)
    else:
        is_allowed = await in_thread(ask, action, user, path, chat_and_run.chat)
    if not is_allowed:
        raise _denied(request, user, path, action)
    return chat_and_run


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in one of the threads for chats, with the context of the request.

    Raises:
        ServiceUnavailable: it has not returned within `ANSWER_SECONDS`.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS) as deadline:
            return await _threads.call(partial(copy_context().run, function, *args, **kwargs))
    except TimeoutError:
        if not deadline.expired():  # the function has raised it
            raise
        raise no_answer() from None


def check_again(request: HttpRequest, user: Any, path: str, allowed: Chat | None, chat: Chat, is_new: bool) -> None:
    """Ask for the permission again, if the chat is not the one that the user was allowed to write in.

    Raises:
        Refused: another user has created the chat meanwhile, or the chat was deleted and may not be created again.
    """
    if is_new == (allowed is None) and (allowed is None or allowed.pk == chat.pk):
        return
    if not ask("write", user, path, None if is_new else chat):
        raise _denied(request, user, path, "write")


def _denied(request: HttpRequest, user: Any, path: str, action: Action) -> Refused:
    """Log that the permission refuses a request, and return the error, which does not say whether there is a chat."""
    access_request = AccessRequest(DjangoRequest(request, path))
    reasons = [] if getattr(user, "is_authenticated", False) else [access_request.session_failure]
    log_refusal(
        action, path, user, access_request, [f"{dotted_path(type(permission()))} (AI_PERMISSION_CLASS)"], reasons
    )
    return Refused(HTTPStatus.FORBIDDEN, DENIED)


async def create_branch(request: HttpRequest, user: Any, path: str, new_path: str, before: str | None) -> None:
    """Create a branch of a chat that the user may read, at a path where the user may write.

    Raises:
        Refused: the user may not, there is no such chat or message, or the branch would have an unfinished answer.
        StreamExists: the path is taken.
    """
    chat = (await authorized(request, user, path, "read")).chat
    await authorized(request, user, new_path, "write")
    if chat is None:
        raise Refused(HTTPStatus.NOT_FOUND, "There is no such chat.")
    owner = str(user.pk) if getattr(user, "is_authenticated", False) else ""
    try:
        await chat.abranch(new_path, before=before, owner=owner)
    except NoSuchMessage as error:
        raise Refused(HTTPStatus.NOT_FOUND, str(error)) from error
    except UnfinishedAnswer as error:
        raise Refused(HTTPStatus.CONFLICT, str(error)) from error
    except StreamExists:
        await authorized(request, user, new_path, "write")  # another user may have taken the path meanwhile
        raise
