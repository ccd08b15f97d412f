"""Users of many session cookies at once, by the rules of SessionMiddleware and AuthenticationMiddleware.

Synchronous: it runs in a thread. It writes nothing, neither the session nor its expiry.
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
    """Return whether the project has users and sessions."""
    return apps.is_installed("django.contrib.auth") and apps.is_installed("django.contrib.sessions")


def load_sessions(keys: Iterable[str]) -> dict[str, Session]:
    """Return the data of sessions by their keys. Missing and expired sessions are left out."""
    store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseStore) and store.load is DatabaseStore.load:
        rows = store.get_model_class().objects.filter(session_key__in=set(keys), expire_date__gt=timezone.now())
        decoder = store()
        return {row.session_key: decoder.decode(row.session_data) for row in rows}
    return {key: session for key in set(keys) if (session := store(key).load())}


def users_of(sessions: Mapping[str, Session]) -> dict[str, User]:
    """Return the users of sessions by the sessions' keys. Sessions without a valid login are left out."""
    ids_by_backend: dict[str, dict[str, Any]] = {}
    for session in sessions.values():
        backend = session.get(BACKEND_SESSION_KEY)
        if backend is not None and backend in settings.AUTHENTICATION_BACKENDS and SESSION_KEY in session:
            ids_by_backend.setdefault(backend, {})[session[SESSION_KEY]] = None
    users = {backend: _load_users(backend, ids) for backend, ids in ids_by_backend.items()}
    users_by_key = {}
    for key, session in sessions.items():
        user = users.get(session.get(BACKEND_SESSION_KEY, ""), {}).get(session.get(SESSION_KEY, ""))
        if user is not None and _is_verified(session, user):
            users_by_key[key] = user
    return users_by_key


def reload_users(users: Sequence[User]) -> list[User | None]:
    """Return the current state of users with one query for each model. None: the user is inactive, or deleted.

    Middleware may set a user that is not an instance of a model. Such a user is returned as it is.
    """
    keys_by_model: dict[type[Model], set[Any]] = {}
    for user in users:
        user_model = user.__class__  # of a lazy object: the class of the object inside
        if issubclass(user_model, Model):
            keys_by_model.setdefault(user_model, set()).add(user.pk)
    rows = {user_model: user_model._default_manager.in_bulk(list(keys)) for user_model, keys in keys_by_model.items()}
    current_users = [rows[user.__class__].get(user.pk) if user.__class__ in rows else user for user in users]
    return [user if user is not None and getattr(user, "is_active", True) else None for user in current_users]


def belongs_to(session: Session, user: User) -> bool:
    """Return whether a session is the login of this user. Middleware may have set another user."""
    user_id = session.get(SESSION_KEY)
    return user_id is not None and isinstance(user, get_user_model()) and str(user_id) == str(user.pk)


def _load_users(backend_path: str, ids: Iterable[str]) -> dict[str, User]:
    """Return users by their ids in the form that sessions store."""
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
    loaded = {text: backend.get_user(key) for text, key in keys.items()}
    return {text: user for text, user in loaded.items() if user is not None}


def _is_verified(session: Session, user: User) -> bool:
    """Return whether a session has the hash of the current password, by SECRET_KEY or one of its fallbacks."""
    if not hasattr(user, "get_session_auth_hash"):
        return True
    session_hash = session.get(HASH_SESSION_KEY)
    if not session_hash:
        return False
    return constant_time_compare(session_hash, user.get_session_auth_hash()) or any(
        constant_time_compare(session_hash, fallback) for fallback in user.get_session_auth_fallback_hash()
    )
