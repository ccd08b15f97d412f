"""Who may use which chat: the class that the setting `AI_PERMISSION_CLASS` names, and its default."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ...access import verdicts
from ...conf import config
from ...protocol import paths
from ...protocol.errors import InvalidPath
from .errors import InvalidChatId
from .models import Chat

Action = Literal["read", "write", "stop"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def in_memory(method: _Method) -> _Method:
    """Mark an `allows` that uses memory only, so that it is called in the event loop and needs no thread.

    A subclass that overrides the method needs a mark of its own.
    """
    # The mark holds the marked function, because functools.wraps copies it to functions that may use the database.
    method._is_in_memory = method  # type: ignore[attr-defined]
    return method


def is_in_memory(permission: ChatPermission) -> bool:
    """Return whether a permission decides without a database."""
    function = getattr(permission.allows, "__func__", permission.allows)
    return getattr(function, "_is_in_memory", None) is function


class ChatPermission:
    """Decides who may use which chat. The base class refuses everything.

    `allows` runs in a thread, and may use the database. One that needs only its arguments can be marked with
    `in_memory`, and is then called in the event loop.
    """

    def allows(self, action: Action, user: Any, path: str, chat: Chat | None) -> bool:
        """Return whether a user may do something with a chat.

        Args:
            action: `read` it, `write` a message and start an answer, or `stop` an answer.
            user: the user of the request, who may be anonymous.
            path: the path of the chat's stream.
            chat: the chat, or None if there is none at the path. To allow `write` then is to allow its creation. A
                refusal should not depend on this, because it would tell which chats exist.
        """
        return False

    def path(self, user: Any, chat_id: str) -> str:
        """Return the path of the stream of the chat that a client calls `chat_id`.

        By default it has the user's primary key, so the ids of two users never mean the same chat.

        Raises:
            InvalidChatId: no stream can have the path. In a view of the project this is a 400.
        """
        return _checked(f"chats/{'-' if user is None or user.pk is None else user.pk}/{chat_id}")


class OwnChats(ChatPermission):
    """Users may use the chats that they own, and create chats below `chats/<their primary key>/`. This is the default.

    Anonymous users may do nothing.
    """

    @in_memory
    def allows(self, action: Action, user: Any, path: str, chat: Chat | None) -> bool:
        """See the base class."""
        if user is None or not user.is_authenticated:
            return False
        if chat is not None:
            return chat.owner == str(user.pk)
        return path.startswith(f"chats/{user.pk}/")


class AnonymousChats(ChatPermission):
    """Everybody may use every chat whose id they know. For demonstrations, and behind a permission of your own."""

    @in_memory
    def allows(self, action: Action, user: Any, path: str, chat: Chat | None) -> bool:
        """See the base class."""
        return True

    def path(self, user: Any, chat_id: str) -> str:
        """The same chat for everybody."""
        return _checked(f"chats/{chat_id}")


def _checked(path: str) -> str:
    try:
        return paths.validate(path)
    except InvalidPath as error:
        raise InvalidChatId(f"No chat can have this id. {error.detail}") from error


@lru_cache(maxsize=4)
def _loaded(dotted_path: str) -> ChatPermission:
    permission: ChatPermission = import_string(dotted_path)()
    if iscoroutinefunction(permission.allows):
        raise ImproperlyConfigured(f"{dotted_path}.allows is `async def`. It runs in a thread: write `def`.")
    return permission


def permission() -> ChatPermission:
    """Return the permission of the settings.

    Raises:
        ImportError: `AI_PERMISSION_CLASS` names nothing.
        ImproperlyConfigured: its `allows` is asynchronous.
    """
    return _loaded(config().ai_permission_class)


def ask(action: Action, user: Any, path: str, chat: Chat | None) -> bool:
    """Return whether the permission of the settings allows a user to do something with a chat.

    Raises:
        TypeError: its answer is neither a yes nor a no, as that of an `async def` is.
    """
    answer: object = permission().allows(action, user, path, chat)
    if isinstance(answer, Coroutine):
        answer.close()
    return verdicts.allows(answer, "allows")
