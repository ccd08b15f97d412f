"""What people type or paste for a stream: its path, the path of its URL, or the whole URL.

A URL that leads to another view of the project is no stream. Its path would name a stream that nobody has asked about.
"""

from __future__ import annotations

import logging
from argparse import ArgumentTypeError
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, ResolverMatch, get_script_prefix, resolve

from ...access.users import User, anonymous
from ...conf import config
from ...links import stream_url

logger = logging.getLogger(__name__)


class Location(NamedTuple):
    """A stream as an argument names it: its path, and the query and the host of a URL."""

    path: str
    query: str = ""
    host: str = ""


class NoStream(Exception):
    """A URL does not lead to a stream. The message says where it leads, and what to give instead."""


def path_argument(text: str) -> str:
    """Return the path that an argument means, as `locate` finds it."""
    try:
        return locate(text, anonymous()).path
    except NoStream as error:
        raise ArgumentTypeError(str(error)) from error


def locate(text: str, user: User) -> Location:
    """Return which stream an argument means. A slash at the beginning of a path is the root of the streams.

    Args:
        text: a path, the path of a URL, or a URL.
        user: the user in whose name is asked. The error about the URL of a chat names the stream of this user's chat.

    Raises:
        NoStream: it is a URL that leads to another view, or nowhere.
    """
    is_url = "://" in text
    if not is_url and not text.startswith("/"):
        return Location(text)
    try:
        root = urlsplit(stream_url("")).path
    except ImproperlyConfigured:  # the system checks say what is wrong
        return Location(text.removeprefix("/"))
    try:
        host, url_path, query = urlsplit(text)[1:4] if is_url else ("", *text.partition("?")[::2])
    except ValueError as error:
        raise NoStream(f"{text} is no URL: {error}.") from error
    if (is_url or root != "/") and url_path.startswith(root):
        return Location(unquote(url_path.removeprefix(root)), query, host)
    from ...server.views import StreamView  # which few commands need

    match = _resolve(unquote(url_path))
    if match is not None and _class_of(match) is StreamView:
        return Location(match.kwargs.get("stream_path", ""), query, host)
    if match is not None:
        remedy = "" if is_url else " If you mean the path of a stream, leave out the first slash."
        raise NoStream(f"{text} is no stream. It leads to {_describe(match, user)}{remedy}")
    if is_url:
        raise NoStream(
            f"{text} is a URL, and its path does not begin with {root}. Give the path below the root of the streams, "
            "such as users/1/news."
        )
    return Location(text.removeprefix("/"))


def _resolve(path: str) -> ResolverMatch | None:
    """Return the view of the project to which a path leads, also as the slash that Django appends."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return None
    below = "/" + path.removeprefix(get_script_prefix())
    for candidate in (below, f"{below}/"):
        try:
            return resolve(candidate)
        except Resolver404:
            continue
        except Exception as error:  # of the project's URLs, which Django reports with the first request to them
            logger.debug("The URLs of the project cannot be imported: %s", error)
            break
    return None


def _class_of(match: ResolverMatch) -> Any:
    return getattr(match.func, "view_class", None)


def _describe(match: ResolverMatch, user: User) -> str:
    """Return what a view is, and what to ask instead."""
    chat_views = getattr(match.func, "chat_views", None)
    if chat_views is not None:
        return _describe_chat(_name(type(chat_views)), match.kwargs.get("chat_id"), user)
    from ...server.pages.sources import EventView

    view_class = _class_of(match)
    name = _name(view_class or match.func)
    if not (isinstance(view_class, type) and issubclass(view_class, EventView)):
        return f"the view {name} of the project. If it sends a stream to pages, give the path of that stream."
    has_own_path = view_class.get_path is not EventView.get_path
    path = f"that {name}.get_path returns" if has_own_path else str(match.kwargs.get("path", ""))
    text = f"the event view {name}, which sends a stream to pages. Give the path {path} instead."
    if getattr(match.func, "event_source_settings", EventView.settings).check_permissions:
        return text
    return f"{text} But check_permissions is off, so this view asks no permission class."


def _describe_chat(name: str, chat_id: str | None, user: User) -> str:
    from ...contrib.ai.permissions import permission  # the app is installed, or its views could not be imported

    setting = config().ai_permission_class.rpartition(".")[2]
    text = f"the chat {name}. Who may use a chat there is decided by AI_PERMISSION_CLASS, {setting}, alone."
    if chat_id is None:
        return text
    if not user.is_authenticated:
        return f"{text} The stream of the chat is at the path that {setting}.path returns for the user."
    return f"{text} A page may read the stream of the chat, too. Give its path: {permission().path(user, chat_id)}"


def _name(view: Any) -> str:
    """Return the dotted name of a view, which may be a partial or another object without a name of its own."""
    view = view if hasattr(view, "__qualname__") else type(view)
    return f"{view.__module__}.{view.__qualname__}"
