"""What happens in this process and changes who somebody is or what they may do: it is seen at once here."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from .guard import made_guard
from .users import User

_UID = "durable_streams.access"


def connect() -> None:
    """Listen. To be called once all apps are loaded."""
    user_logged_in.connect(_logged, dispatch_uid=_UID)
    user_logged_out.connect(_logged, dispatch_uid=_UID)
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


def _logged(sender: Any, request: Any, user: User, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    _forget(user, getattr(session, "session_key", None))


def _session_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    _forget(None, instance.session_key, using)


def _user_changed(sender: Any, instance: User, using: str, **kwargs: Any) -> None:
    _forget(instance, None, using)


def _all_changed(sender: Any, using: str, **kwargs: Any) -> None:
    _forget(None, None, using)


def _forget(user: User, key: str | None, using: str | None = None) -> None:
    """Forget now, and once more when it is committed: until then others read what was there before."""
    guard = made_guard()
    if guard is None:
        return
    guard.callers.forget(user, key)
    transaction.on_commit(lambda: guard.callers.forget(user, key), using=using)
