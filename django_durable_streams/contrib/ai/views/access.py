"""Who may use a chat in the views. Knows neither bodies nor responses.

The functions that use the database run in a thread.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest

from ....protocol.errors import StreamExists
from ..errors import NoSuchMessage, UnfinishedAnswer
from ..models import Chat
from ..permissions import Action, permission

DENIED = "Permission denied."


class Refused(Exception):
    """The request is refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def user_of(request: HttpRequest) -> Any:
    """Return the user of a request, or None without Django's authentication."""
    auser = getattr(request, "auser", None)
    return None if auser is None else await auser()


def authorized(user: Any, path: str, action: Action) -> Chat | None:
    """Return the chat at a path, if the user may use it.

    Raises:
        Refused: the user may not use the chat, whether or not there is one.
    """
    chat = Chat.at(path)
    if not permission().allows(action, user, path, chat):
        raise Refused(HTTPStatus.FORBIDDEN, DENIED)
    return chat


def check_again(user: Any, path: str, allowed: Chat | None, chat: Chat, is_new: bool) -> None:
    """Ask for the permission again, if the chat is not the one that the user was allowed to write in.

    Raises:
        Refused: another user has created the chat meanwhile, or the chat was deleted and may not be created again.
    """
    if is_new == (allowed is None) and (allowed is None or allowed.pk == chat.pk):
        return
    if not permission().allows("write", user, path, None if is_new else chat):
        raise Refused(HTTPStatus.FORBIDDEN, DENIED)


def create_branch(user: Any, path: str, new_path: str, before: str | None) -> None:
    """Create a branch of a chat that the user may read, at a path where the user may write.

    Raises:
        Refused: the user may not, there is no such chat or message, or the branch would have an unfinished answer.
        StreamExists: the path is taken.
    """
    chat = authorized(user, path, "read")
    authorized(user, new_path, "write")
    if chat is None:
        raise Refused(HTTPStatus.NOT_FOUND, "There is no such chat.")
    try:
        chat.branch(new_path, before=before, owner=str(user.pk) if getattr(user, "is_authenticated", False) else "")
    except NoSuchMessage as error:
        raise Refused(HTTPStatus.NOT_FOUND, str(error)) from error
    except UnfinishedAnswer as error:
        raise Refused(HTTPStatus.CONFLICT, str(error)) from error
    except StreamExists:
        authorized(user, new_path, "write")  # another user may have taken the path meanwhile
        raise
