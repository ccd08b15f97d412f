"""Whether permissions can be asked, and whether there is anybody to ask about."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.http import is_same_domain
from django.utils.module_loading import import_string

from ..access.addresses import networks
from ..access.base import Action, Permission, is_for_everybody
from ..access.loading import make_permissions
from ..access.rest_framework import RestFramework
from ..conf import config
from .requiring import needs_settings
from .urls import has_url_entry_point

_METHODS = [action.method for action in Action]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@register(Tags.security)
@needs_settings
def check_permission(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E005: there is no such permission. E006: its methods cannot be called. W001: one is misspelt."""
    try:
        permissions = make_permissions(config().permission_classes)
    except ImproperlyConfigured as error:
        return [
            Error(
                f"PERMISSION_CLASSES: {error}",
                hint="The classes of this app are in django_durable_streams.permissions.",
                id="durable_streams.E005",
            )
        ]
    found: list[CheckMessage] = []
    for permission in permissions:
        found += _methods(permission)
    return [*found, *_users(permissions), *_caching(permissions)]


@register(Tags.security)
@needs_settings
def check_cross_origin(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E004: CORS_ALLOW_HEADERS has what is no header. W021: pages may read with a session, and not write."""
    found: list[CheckMessage] = [
        Error(f"CORS_ALLOW_HEADERS: {name!r} is not the name of a header.", id="durable_streams.E004")
        for name in config().cors_allow_headers
        if not _TOKEN.fullmatch(name)
    ]
    trusted = settings.CSRF_TRUSTED_ORIGINS
    missing = [] if _opens() else [known for known in config().cors_origins if not _is_trusted(known, trusted)]
    if missing:
        found.append(
            Warning(
                f"Pages of {', '.join(missing)} may read streams with a session, and cannot change them.",
                hint="Add the origins to CSRF_TRUSTED_ORIGINS, or silence this check if the pages only read, or bring "
                "tokens.",
                id="durable_streams.W021",
            )
        )
    return found


@register(Tags.security, deploy=True)
@needs_settings
def check_addresses(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W022: behind a proxy, all clients are counted as one. W023: clients choose the address by which they count."""
    proxies = config().trusted_proxies
    if not proxies and config().rate_limits:
        return [
            Warning(
                "RATE_LIMITS count those who are not logged in by address, and TRUSTED_PROXIES is empty: behind a "
                "proxy they are all counted as one.",
                hint="Have the proxy set X-Forwarded-For to the address of its client, and name the proxy in "
                "TRUSTED_PROXIES. Silence this check if clients connect to this server directly.",
                id="durable_streams.W022",
            )
        ]
    try:
        everybody = [str(known) for known in networks(proxies) if known.prefixlen == 0]
    except ValueError:
        return []  # E004
    if not everybody:
        return []
    return [
        Warning(
            f"TRUSTED_PROXIES has {', '.join(everybody)}: whoever sends X-Forwarded-For is believed, and chooses the "
            "address by which it is counted.",
            hint="Name the proxies' own addresses or networks.",
            id="durable_streams.W023",
        )
    ]


@register(Tags.security, deploy=True)
@needs_settings
def check_open(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W002: everybody may do everything."""
    if not _opens():
        return []
    return [
        Warning(
            "Everybody who reaches a stream's URL may read, change and delete it.",
            hint="Name another class than AllowAll in DURABLE_STREAMS['PERMISSION_CLASSES'], or silence this check if "
            "something in front of this server decides.",
            id="durable_streams.W002",
        )
    ]


def _opens() -> bool:
    """Whether everybody may do everything."""
    try:
        permissions = make_permissions(config().permission_classes)
    except ImproperlyConfigured:
        return False
    return any(all(is_for_everybody(known, action) for action in Action) for known in permissions)


def _is_trusted(origin: str, trusted: Sequence[str]) -> bool:
    """Whether Django's CSRF check takes an origin for one of ours, other than by the request's own host."""
    if origin in trusted or origin == "*":  # * brings no session
        return True
    scheme, _, host = origin.partition("://")
    return any(
        known.startswith(f"{scheme}://*.") and is_same_domain(host, known.removeprefix(f"{scheme}://*"))
        for known in trusted
    )


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
    if has_url_entry_point() and not any(_is(path, middleware) for path in settings.MIDDLEWARE):
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
    """W005: what not everybody may read is not left to shared caches, whatever the setting says."""
    if config().cache_scope != "public" or any(is_for_everybody(known, Action.READ) for known in permissions):
        return []
    return [
        Warning(
            "CACHE_SCOPE is public, but not everybody may read: the setting does nothing, and every cache asks here.",
            hint="Leave CACHE_SCOPE at 'private', or let everybody read.",
            id="durable_streams.W005",
        )
    ]
