"""Asks each permission class of the settings about an action, one by one, and says what each of them answers.

For people who look for the reason of a refusal. It counts no limits, and it does not ask whether there is a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from asgiref.sync import async_to_sync

from ..conf import config
from ..protocol.errors import PermissionDenied
from ..runtime.printable import loggable
from .access_request import AccessRequest
from .base import Action
from .creation_policy import CreationPolicy
from .guard import Guard
from .identities import Identity
from .loading import entries, import_permission
from .users import User

if TYPE_CHECKING:
    from ..protocol.messages import Request


_CHANGES = (Action.CREATE, Action.APPEND, Action.CLOSE, Action.DELETE)


class Answer(NamedTuple):
    """The answer of one permission class: its dotted path, whether it allows the action, and its reasons."""

    permission: str
    is_allowed: bool
    reasons: Sequence[str]


def examine_access(action: Action, user: User, name: str, request: Request) -> list[Answer]:
    """Return the answers of all permission classes. One that allows the action is enough.

    Args:
        action: the action.
        user: a user of the project's model, or an anonymous user.
        name: the path of a stream, the id of a subscription, or the prefix of a listing.
        request: a request that has passed the CSRF rules, with the client's credentials.

    Raises:
        ImproperlyConfigured, ValueError: the settings are invalid.
        InvalidParameter: the query of the request is invalid.
        ServiceUnavailable: a permission cannot be asked, because the database does not answer.
    """
    return [_examine_one(entry, action, user, name, request) for entry in entries(config().permission_classes)]


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


def _examine_one(entry: object, action: Action, user: User, name: str, request: Request) -> Answer:
    guard = Guard(replace(config(), permission_classes=[entry], rate_limits={}))
    guard.prepare(user)
    access_request = AccessRequest(request, guard.credential_headers)
    access_request.caller = Identity(user)
    is_allowed = async_to_sync(guard.is_allowed)(action, user, name, access_request)
    if is_allowed:
        return Answer(import_permission(entry)[2], True, ())
    allowed_paths = (loggable(one.allowed_paths(action, user)) for one in guard.permissions)
    return Answer(import_permission(entry)[2], False, (*access_request.reasons, *filter(None, allowed_paths)))
