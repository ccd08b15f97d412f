"""A short session of a user, for reads through the public URL as that user, and whether the settings allow them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.db import Error

from ...access.base import Action
from ...access.examination import examine_access, is_allowed_by, loads_users
from ...access.sessions import are_installed
from ...access.users import User, anonymous
from ...protocol.errors import DurableStreamsError
from ..client_request import ClientRequest
from .public_url import PublicURL

SESSION_SECONDS = 300


@contextmanager
def session_cookie(user: User) -> Iterator[str]:
    """Return the header `Cookie` of a new session of a user, which is deleted at the end. It is no login.

    Raises:
        ValueError: the project has no sessions.
    """
    if not are_installed():
        raise ValueError("This project has no sessions. Send credentials by --header.")
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.set_expiry(SESSION_SECONDS)
    session.save()
    try:
        yield f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    finally:
        session.delete()


def may_read(user: User | None, url: PublicURL, path: str) -> bool:
    """Return whether the permission classes of these settings let a user read a path through a URL."""
    host = url.parts.netloc.rpartition("@")[2]
    try:
        request = ClientRequest(Action.READ, path, "offset=-1", host, url.headers.items())
        caller = user if user is not None and loads_users() else anonymous()
        answers, _ = examine_access(Action.READ, caller, path, request)
    except (DurableStreamsError, SuspiciousOperation, ImproperlyConfigured, ValueError, Error):
        return False
    return is_allowed_by(answers)
