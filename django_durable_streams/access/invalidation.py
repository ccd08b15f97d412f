"""Signals of Django that drop cached identities: logins, logouts, and changes of users, groups and sessions.

Changes in this process are visible at once. Changes in other processes are visible after `AUTH_CACHE_SECONDS`.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from .guard import existing_guard
from .users import User

_UID = "durable_streams.access"


def connect() -> None:
    """Connect the receivers. Call this once, after all apps are loaded."""
    user_logged_in.connect(_logged_in_or_out, dispatch_uid=_UID)
    user_logged_out.connect(_logged_in_or_out, dispatch_uid=_UID)
    if apps.is_installed("django.contrib.sessions"):
        from django.contrib.sessions.models import Session

        post_delete.connect(_session_deleted, sender=Session, dispatch_uid=_UID)
    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth.models import Group

    user_model = get_user_model()
    for signal in (post_save, post_delete):
        signal.connect(_user_changed, sender=user_model, dispatch_uid=_UID)
        signal.connect(_all_changed, sender=Group, dispatch_uid=_UID)
    for relation in (*user_model._meta.local_many_to_many, *Group._meta.local_many_to_many):
        m2m_changed.connect(_all_changed, sender=relation.remote_field.through, dispatch_uid=_UID)


def _logged_in_or_out(sender: Any, request: Any, user: User, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    _invalidate(user, getattr(session, "session_key", None))


def _session_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _invalidate(None, instance.session_key, using)


def _user_changed(sender: Any, instance: User, using: str, **kwargs: Any) -> None:
    _invalidate(instance, None, using)


def _all_changed(sender: Any, using: str, **kwargs: Any) -> None:
    _invalidate(None, None, using)


def _invalidate(user: User, key: str | None, using: str | None = None) -> None:
    """Drop identities now, and again after the commit. Until then other connections still read the old rows."""
    guard = existing_guard()
    if guard is None:
        return
    guard.identities.invalidate(user, key)
    transaction.on_commit(lambda: guard.identities.invalidate(user, key), using=using)
