"""Checks of the settings of AI answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth import get_backends, get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from ... import conf
from ...access.base import Action, Permission
from ...access.loading import make_permissions
from ...access.model_permissions import ModelPermissions
from ...access.owners import Owner
from ...access.rest_framework import RestFramework
from ...server.entry_points import asgi_module_names_streams, has_url_entry_point, views_of_urls
from ...subscriptions.consumers.task_framework import backend_problem
from .permissions import ChatPermission, permission


@register()
def check_answers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E012: the permission class cannot be made. E013: the task backend cannot be used."""
    if conf.findings(conf.project_value()):
        return []
    messages: list[CheckMessage] = []
    try:
        permission()
    except Exception as error:
        hint = "Name a subclass of django_durable_streams.contrib.ai.permissions.ChatPermission."
        messages.append(Error(f"AI_PERMISSION_CLASS cannot be used: {error}", hint=hint, id="durable_streams.E012"))
    if conf.config().ai_runs_in == "tasks":
        problem = backend_problem(conf.config().ai_task_backend, "default")
        if problem:
            messages.append(Error("AI_RUNS_IN is `tasks`, which cannot work.", hint=problem, id="durable_streams.E013"))
    return messages


_GRANTING = ("has_perm", "get_all_permissions", "get_user_permissions", "get_group_permissions")
"""Methods of authentication backends that may grant permissions by other means than rows."""


@register(Tags.security)
def check_readers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W030: users may use their chats, and no permission lets them read the streams of these chats."""
    if conf.findings(conf.project_value()) or not _may_follow_chats() or not _nobody_reads():
        return []
    return [
        Warning(
            "No permission class lets ordinary users read the streams of their chats, so a page that follows such a "
            "stream gets 403.",
            hint="Add Owner to PERMISSION_CLASSES, with OWNER: {'chats/{user.pk}/**': ['read']}. Do not grant users "
            "the permission view_stream for this, because it opens the chats of all users. Silence this check if "
            "pages read chats only through the views of chats, as those with useChat do.",
            id="durable_streams.W030",
        )
    ]


def _may_follow_chats() -> bool:
    """Return whether streams are served, and users have chats of their own at the usual paths."""
    try:
        if type(permission()).path is not ChatPermission.path:
            return False
    except Exception:  # E012
        return False
    is_served = has_url_entry_point() or asgi_module_names_streams()
    return is_served and any(hasattr(view, "chat_views") for view in views_of_urls())


def _nobody_reads() -> bool:
    try:
        return all(_refuses(one) for one in make_permissions(conf.config().permission_classes))
    except ImproperlyConfigured:  # E005
        return False


def _refuses(permission: Permission) -> bool:
    """Return whether a permission lets no ordinary user read a chat. Classes of the project count as if they might."""
    if isinstance(permission, RestFramework):
        return _refuses(permission.permission)
    method = type(permission).can_read
    if method is ModelPermissions.can_read:
        return _needs_granted_permissions()
    if method is Owner.can_read and isinstance(permission, Owner):
        return not permission.may_allow(Action.READ, "chats")
    return False


def _needs_granted_permissions() -> bool:
    """Return whether users have only permissions that were granted to them. A project's own code may give others."""
    if not apps.is_installed("django.contrib.auth"):
        return False  # E007
    from django.contrib.auth.models import PermissionsMixin  # a model of an app that may be missing

    if getattr(get_user_model(), "has_perm", None) is not PermissionsMixin.has_perm:
        return False
    return all(_grants_only_rows(backend) for backend in get_backends())


def _grants_only_rows(backend: object) -> bool:
    kind = type(backend)
    own = [getattr(kind, name, None) for name in _GRANTING]
    return all(method is None or method.__module__ == "django.contrib.auth.backends" for method in own)
