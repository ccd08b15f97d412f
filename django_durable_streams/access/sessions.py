"""From session cookies to users, for many at once: what SessionMiddleware and AuthenticationMiddleware do for one.

Synchronous; it is called in a thread. Nothing is written: not the session, not its expiry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from .users import User

Session = Mapping[str, Any]


def are_installed() -> bool:
    """Whether the project has users and sessions at all."""
    return apps.is_installed("django.contrib.auth") and apps.is_installed("django.contrib.sessions")


def load_sessions(keys: Iterable[str]) -> dict[str, Session]:
    """Return what sessions hold, by their keys; those that are not there, or have expired, are left out."""
    store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore) and store.load is DatabaseStore.load:
        rows = store.get_model_class().objects.filter(session_key__in=set(keys), expire_date__gt=timezone.now())
        decoder = store()
        return {row.session_key: decoder.decode(row.session_data) for row in rows}
    return {key: found for key in set(keys) if (found := store(key).load())}


def users_of(sessions: Mapping[str, Session]) -> dict[str, User]:
    """Return the users who are logged in with sessions, by the sessions' keys."""
    wanted: dict[str, dict[str, Any]] = {}
    for session in sessions.values():
        backend = session.get(BACKEND_SESSION_KEY)
        if backend is not None and backend in settings.AUTHENTICATION_BACKENDS and SESSION_KEY in session:
            wanted.setdefault(backend, {})[session[SESSION_KEY]] = None
    users = {backend: _load(backend, ids) for backend, ids in wanted.items()}
    found = {}
    for key, session in sessions.items():
        user = users.get(session.get(BACKEND_SESSION_KEY, ""), {}).get(session.get(SESSION_KEY, ""))
        if user is not None and _is_verified(session, user):
            found[key] = user
    return found


def load_again(users: Sequence[User]) -> list[User | None]:
    """Return users as the database has them now, with one query for each model; None for those who are not active.

    A user of middleware's own need not be of the project's model, nor of any: then nobody but itself knows how it is.
    """
    wanted: dict[type[Model], set[Any]] = {}
    for user in users:
        kind = user.__class__  # of a lazy object: of what is inside
        if issubclass(kind, Model):
            wanted.setdefault(kind, set()).add(user.pk)
    rows = {kind: kind._default_manager.in_bulk(list(keys)) for kind, keys in wanted.items()}
    found = [rows[user.__class__].get(user.pk) if user.__class__ in rows else user for user in users]
    return [user if user is not None and getattr(user, "is_active", True) else None for user in found]


def holds(session: Session, user: User) -> bool:
    """Whether it is this user that is logged in with a session. Middleware may have found another one."""
    given = session.get(SESSION_KEY)
    return given is not None and isinstance(user, get_user_model()) and str(given) == str(user.pk)


def _load(backend_path: str, ids: Iterable[str]) -> dict[str, User]:
    """Return users by their ids as sessions have them."""
    from django.contrib.auth.backends import ModelBackend

    backend = load_backend(backend_path)
    field = get_user_model()._meta.pk
    keys = {}
    for text in ids:
        try:
            keys[text] = field.to_python(text)
        except ValidationError:
            continue
    if isinstance(backend, ModelBackend) and type(backend).get_user is ModelBackend.get_user:
        rows = get_user_model()._default_manager.in_bulk(list(keys.values()))
        users = {text: rows[key] for text, key in keys.items() if key in rows}
        return {text: user for text, user in users.items() if backend.user_can_authenticate(user)}
    found = {text: backend.get_user(key) for text, key in keys.items()}
    return {text: user for text, user in found.items() if user is not None}


def _is_verified(session: Session, user: User) -> bool:
    """Whether a session is of the user's present password and the present SECRET_KEY, or a fallback of that."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    given = session.get(HASH_SESSION_KEY)
    if not given:
        return False
    return constant_time_compare(given, user.get_session_auth_hash()) or any(
        constant_time_compare(given, fallback) for fallback in user.get_session_auth_fallback_hash()
    )
