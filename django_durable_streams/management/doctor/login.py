"""A short session of a user, for reads through the public URL as that user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from ...access.sessions import are_installed
from ...access.users import User

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
