"""Whether permissions can be asked, and whether there is anybody to ask about."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..access.base import Action, Permission
from ..access.making import make_permissions
from ..access.models import AllowAll, ReadOnly
from ..access.rest_framework import RestFramework
from ..conf import config
from .requiring import needs_settings
from .urls import has_url_door

_METHODS = [action.method for action in Action]


@register(Tags.security)
@needs_settings
def check_permission(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E005: there is no such permission. E006: its methods cannot be called. W001: one is misspelt."""
    try:
        permissions = make_permissions(config().permission)
    except ImproperlyConfigured as error:
        return [
            Error(
                f"PERMISSION: {error}",
                hint="The classes of this app are in django_durable_streams.permissions.",
                id="durable_streams.E005",
            )
        ]
    found: list[CheckMessage] = []
    for permission in permissions:
        found += _methods(permission)
    return [*found, *_users(permissions), *_caching(permissions)]


@register(Tags.security, deploy=True)
@needs_settings
def check_open(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W002: everybody may do everything."""
    try:
        is_open = any(type(permission) is AllowAll for permission in make_permissions(config().permission))
    except ImproperlyConfigured:
        return []
    if not is_open:
        return []
    return [
        Warning(
            "Everybody who reaches a stream's URL may read, change and delete it.",
            hint="Name another class than AllowAll in DURABLE_STREAMS['PERMISSION'], or silence this check if "
            "something in front of this server decides.",
            id="durable_streams.W002",
        )
    ]


def _methods(permission: Permission) -> list[CheckMessage]:
    kind = type(permission)
    found: list[CheckMessage] = []
    for name in _METHODS:
        try:
            inspect.signature(getattr(permission, name)).bind(None, "path", None)
        except TypeError:
            found.append(
                Error(
                    f"{kind.__name__}.{name} cannot be called.",
                    hint="It takes the user, the stream's path and the request.",
                    id="durable_streams.E006",
                )
            )
    for name in dir(kind):
        if name.startswith("can_") and name not in _METHODS:
            near = get_close_matches(name, _METHODS, n=1)
            found.append(
                Warning(
                    f"{kind.__name__}.{name} is never asked.",
                    hint=f"Did you mean {near[0]}?" if near else f"There are {', '.join(_METHODS)}.",
                    id="durable_streams.W001",
                )
            )
    return found


def _users(permissions: list[Permission]) -> list[CheckMessage]:
    """E007: there are no users. W003: there are no sessions. W004: nobody is logged in at the URLs."""
    need = [known for known in permissions if known.needs_user and not isinstance(known, RestFramework)]
    if not need:
        return []
    names = ", ".join(type(known).__name__ for known in need)
    if not apps.is_installed("django.contrib.auth"):
        return [
            Error(
                f"{names} asks about users, and there are none.",
                hint="Add django.contrib.auth and django.contrib.contenttypes to INSTALLED_APPS, or name another "
                "permission, such as SignedURLs.",
                id="durable_streams.E007",
            )
        ]
    if not apps.is_installed("django.contrib.sessions"):
        return [
            Warning(
                f"{names} asks about users, and without sessions nobody is logged in at the ASGI application.",
                hint="Add django.contrib.sessions to INSTALLED_APPS, or put into the scope who the user is.",
                id="durable_streams.W003",
            )
        ]
    middleware = "django.contrib.auth.middleware.AuthenticationMiddleware"
    if has_url_door() and not any(_is(path, middleware) for path in settings.MIDDLEWARE):
        return [
            Warning(
                f"{names} asks about users, and without AuthenticationMiddleware nobody is logged in at the URLs.",
                hint="Add SessionMiddleware and AuthenticationMiddleware to MIDDLEWARE, or silence this check if other "
                "middleware sets request.user.",
                id="durable_streams.W004",
            )
        ]
    return []


def _is(path: str, wanted: str) -> bool:
    try:
        found, base = import_string(path), import_string(wanted)
    except ImportError:
        return False
    return inspect.isclass(found) and issubclass(found, base)


def _caching(permissions: list[Permission]) -> list[CheckMessage]:
    """W005: what not everybody may read is left to shared caches."""
    if config().cache_scope != "public" or any(isinstance(known, AllowAll | ReadOnly) for known in permissions):
        return []
    return [
        Warning(
            "CACHE_SCOPE is public, but not everybody may read: shared caches hand out what they keep to anybody.",
            hint="Leave CACHE_SCOPE at 'private', or see to it that every cache asks here first.",
            id="durable_streams.W005",
        )
    ]
