"""Asks each permission class of the settings about an action, one by one, and says what each of them answers.

For people who look for the reason of a refusal. It counts no limits, and it does not ask whether there is a stream.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from asgiref.sync import async_to_sync
from django.core.exceptions import DisallowedHost
from django.db import Error

from ..conf import config
from ..protocol.errors import DurableStreamsError, PermissionDenied
from ..runtime.printable import loggable
from .access_request import AccessRequest
from .base import Action, Permission
from .creation_policy import CreationPolicy
from .guard import Guard
from .identities import Identity
from .loading import entries, import_permission
from .refusals import decider, explain_missing_methods
from .users import User

if TYPE_CHECKING:
    from ..protocol.messages import Request


_CHANGES = (Action.CREATE, Action.APPEND, Action.CLOSE, Action.DELETE)


class Answer(NamedTuple):
    """The answer of one permission class: its dotted path, whether it allows the action, its reasons, and whether it
    raises an error."""

    permission: str
    is_allowed: bool
    reasons: Sequence[str]
    fails: bool = False


def examine_access(action: Action, user: User, name: str, request: Request) -> tuple[list[Answer], str]:
    """Return the answers of all permission classes, and a sentence about a token that none of them reads.

    One class that allows the action is enough.

    Args:
        action: the action.
        user: a user of the project's model, or an anonymous user.
        name: the path of a stream, the id of a subscription, or the prefix of a listing.
        request: a request that has passed the CSRF rules, with the client's credentials.

    Raises:
        ImproperlyConfigured, ValueError: the settings are invalid.
        DisallowedHost: the host of the request is not in `ALLOWED_HOSTS`.
        InvalidParameter: the query of the request is invalid.
        ServiceUnavailable: a permission cannot be asked, because the database does not answer.
    """
    results = [_examine_one(entry, action, user, name, request) for entry in entries(config().permission_classes)]
    unread = [sentence for _, sentence in results]
    return [answer for answer, _ in results], unread[0] if unread and all(unread) else ""


def loads_users() -> bool:
    """Return whether the user of a request counts: one of the permissions uses it, or a limit does."""
    return Guard(config()).needs_identity


def settings_refusal(action: Action, path: str) -> str:
    """Return why the settings let nobody do an action on a stream over HTTP. Empty: they allow it."""
    if action in _CHANGES and path == config().registry_path:
        return "This is the registry: only the server writes to it."
    if action is not Action.CREATE or not CreationPolicy.is_needed(config()):
        return ""
    try:
        CreationPolicy(config()).check(path, None, forks=True)  # as a fork: its content type does not count
    except PermissionDenied:
        return "PATH_PATTERNS has no pattern for this path, so nobody may create a stream there over HTTP."
    return ""


def is_allowed_by(answers: Iterable[Answer]) -> bool:
    """Return whether a request with these answers goes on: a class allows it, and none before it fails."""
    return next((answer.is_allowed for answer in answers if answer.is_allowed or answer.fails), False)


def _examine_one(entry: object, action: Action, user: User, name: str, request: Request) -> tuple[Answer, str]:
    guard = Guard(replace(config(), permission_classes=[entry], rate_limits={}))
    dotted_path = import_permission(entry)[2]
    access_request = AccessRequest(request, guard.credential_headers)
    access_request.caller = Identity(user)
    try:
        guard.prepare(user)
        if async_to_sync(guard.is_allowed)(action, user, name, access_request):
            return Answer(dotted_path, True, ()), ""
        explain_missing_methods(guard.permissions, guard.asked_action(action, name), access_request)
        reasons = [*access_request.reasons, *(loggable(one.allowed_paths(action, user)) for one in guard.permissions)]
    except (DisallowedHost, DurableStreamsError, Error):
        raise
    except Exception as error:
        return Answer(dotted_path, False, (_failure(error, guard.permissions),), fails=True), ""
    return Answer(dotted_path, False, tuple(filter(None, reasons))), access_request.unread_token


def _failure(error: Exception, permissions: Iterable[Permission]) -> str:
    """Return a sentence about an error of a class, with the last place in the class's own module."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    modules = {type(decider(one)).__module__ for one in permissions}
    frame, line = next((one for one in reversed(frames) if one[0].f_globals.get("__name__") in modules), frames[-1])
    text = loggable(f"{type(error).__name__}: {error}")
    return f"It fails, so requests get 500. It raises {text} ({frame.f_code.co_filename}, line {line})."
