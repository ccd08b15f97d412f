"""Checks of the permissions, and of the users, origins, proxies and caches that they depend on."""

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
from ..access.base import STREAM_ACTIONS, Action, Permission, is_for_everybody
from ..access.loading import make_permissions
from ..access.other_sites import are_surely_apart, cookie_limit, host_of
from ..access.rest_framework import RestFramework
from ..conf import config
from ..server.entry_points import has_url_entry_point
from .owners import check_owners
from .requiring import needs_settings

_OF_DEBUG = [".localhost", "127.0.0.1", "[::1]"]
"""The hosts that Django allows with DEBUG where ALLOWED_HOSTS is empty."""

_METHODS = [action.method for action in Action]
_ARGUMENTS = ("user", "path", "request")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@register(Tags.security)
@needs_settings
def check_permission(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E005: an invalid permission. E006: a method with wrong arguments. W001: a misspelt method. See `owners`, too."""
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
    problems: list[CheckMessage] = []
    for permission in permissions:
        problems += _check_methods(permission)
    return [*problems, *_check_users(permissions), *_check_caching(permissions), *check_owners(permissions)]


@register(Tags.security)
@needs_settings
def check_cross_origin(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E004: an invalid name in CORS_ALLOW_HEADERS. W021: pages may read with a session, but not write. See below."""
    problems: list[CheckMessage] = [
        Error(f"CORS_ALLOW_HEADERS: {name!r} is not the name of a header.", id="durable_streams.E004")
        for name in config().cors_allow_headers
        if not _HEADER_NAME.fullmatch(name)
    ]
    trusted = settings.CSRF_TRUSTED_ORIGINS
    missing = (
        []
        if _everybody_may_everything()
        else [origin for origin in config().cors_origins if not _is_trusted(origin, trusted)]
    )
    if missing:
        problems.append(
            Warning(
                f"Pages of {', '.join(missing)} may read streams with a session, but cannot change them.",
                hint="Add the origins to CSRF_TRUSTED_ORIGINS. Silence this check if the pages only read.",
                id="durable_streams.W021",
            )
        )
    return problems + _check_cookies()


def _check_cookies() -> list[CheckMessage]:
    """W031: pages of another site have no session here, and no other credentials are taken.

    Without the list of public suffixes nobody knows what a site is. So this finds only hosts that cannot be one site
    with any of ALLOWED_HOSTS.
    """
    limit, own = cookie_limit(), settings.ALLOWED_HOSTS or (_OF_DEBUG if settings.DEBUG else ["*"])
    if not limit or "*" in own or not _takes_sessions_only():
        return []
    own_hosts = [pattern.lower().strip("[].") for pattern in own]
    apart = [
        origin
        for origin in config().cors_origins
        if origin != "*" and all(are_surely_apart(host_of(origin), host) for host in own_hosts)
    ]
    if not apart:
        return []
    return [
        Warning(
            f"Browsers send no session cookie from pages of {', '.join(apart)}, which are of another site than "
            f"ALLOWED_HOSTS: SESSION_COOKIE_SAMESITE is {limit!r}.",
            hint="Set SESSION_COOKIE_SAMESITE and CSRF_COOKIE_SAMESITE to 'None', with SESSION_COOKIE_SECURE and "
            "CSRF_COOKIE_SECURE. Or let the pages use tokens. Silence this check if their users are known in "
            "another way.",
            id="durable_streams.W031",
        )
    ]


def _takes_sessions_only() -> bool:
    """Return whether reads need a user that only a session can tell."""
    permissions = _valid_permissions()
    return permissions is not None and all(
        permission.needs_user
        and not isinstance(permission, RestFramework)
        and not is_for_everybody(permission, Action.READ)
        for permission in permissions
    )


@register(Tags.security, deploy=True)
@needs_settings
def check_addresses(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W022: behind a proxy, all clients count as one. W023: clients choose the address by which they are counted."""
    proxies = config().trusted_proxies
    if not proxies and config().rate_limits:
        return [
            Warning(
                "RATE_LIMITS count anonymous clients by address, but TRUSTED_PROXIES is empty. Behind a proxy, all of "
                "them count as one client.",
                hint="Let the proxy set X-Forwarded-For to the address of its client, and name the proxy in "
                "TRUSTED_PROXIES. Silence this check if clients connect to this server directly.",
                id="durable_streams.W022",
            )
        ]
    try:
        universal = [str(network) for network in networks(proxies) if network.prefixlen == 0]
    except ValueError:
        return []  # E004
    if not universal:
        return []
    return [
        Warning(
            f"TRUSTED_PROXIES has {', '.join(universal)}, so each client is trusted, and chooses its own address.",
            hint="Name only the addresses or networks of the proxies.",
            id="durable_streams.W023",
        )
    ]


@register(Tags.security, deploy=True)
@needs_settings
def check_open(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W002: everybody may do everything."""
    if not _everybody_may_everything():
        return []
    return [
        Warning(
            "All clients may read, change and delete all streams.",
            hint="Set DURABLE_STREAMS['PERMISSION_CLASSES'] to another class than AllowAll. Silence this check if a "
            "server in front of this one controls access.",
            id="durable_streams.W002",
        )
    ]


def _everybody_may_everything() -> bool:
    """Return whether everybody may do everything with streams."""
    permissions = _valid_permissions() or []
    actions = [Action(name) for name in STREAM_ACTIONS]
    return any(all(is_for_everybody(permission, action) for action in actions) for permission in permissions)


def _valid_permissions() -> list[Permission] | None:
    """Return the permissions of the settings, or None if they are invalid, which E005 says."""
    try:
        return [*make_permissions(config().permission_classes)]
    except ImproperlyConfigured:
        return None


def _is_trusted(origin: str, trusted: Sequence[str]) -> bool:
    """Return whether Django's CSRF check trusts an origin by the settings."""
    if origin in trusted or origin == "*":  # requests for * have no session
        return True
    scheme, _, host = origin.partition("://")
    return any(
        pattern.startswith(f"{scheme}://*.") and is_same_domain(host, pattern.removeprefix(f"{scheme}://*"))
        for pattern in trusted
    )


def _check_methods(permission: Permission) -> list[CheckMessage]:
    permission_class = type(permission)
    problems: list[CheckMessage] = []
    for name in _METHODS:
        try:
            inspect.signature(getattr(permission, name)).bind(*_ARGUMENTS)
        except TypeError:
            problems.append(
                Error(
                    f"{permission_class.__name__}.{name} cannot be called: {_difference(getattr(permission, name))}.",
                    hint="Let it take the user, the stream's path and the request.",
                    id="durable_streams.E006",
                )
            )
    for name in dir(permission_class):
        if name.startswith("can_") and name not in _METHODS:
            similar = get_close_matches(name, _METHODS, n=1)
            problems.append(
                Warning(
                    f"{permission_class.__name__}.{name} is never called.",
                    hint=f"Did you mean {similar[0]}?" if similar else f"The methods are {', '.join(_METHODS)}.",
                    id="durable_streams.W001",
                )
            )
    return problems


def _difference(method: Any) -> str:
    """Return how a method that cannot be called differs from what it should be."""
    parameters = inspect.signature(method).parameters.values()
    named = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if named:
        return f"it wants {', '.join(named)} by keyword"
    taken = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    names = f" ({', '.join(taken)})" if taken else ""
    expected = f"{len(_ARGUMENTS)} ({', '.join(_ARGUMENTS)})"
    return f"besides self it gets {expected}, and takes {len(taken)}{names}"


def _check_users(permissions: list[Permission]) -> list[CheckMessage]:
    """E007: no users. W003: no sessions. W004: no AuthenticationMiddleware in front of the URLs."""
    using_users = [
        permission for permission in permissions if permission.needs_user and not isinstance(permission, RestFramework)
    ]
    if not using_users:
        return []
    names = ", ".join(type(permission).__name__ for permission in using_users)
    if not apps.is_installed("django.contrib.auth"):
        return [
            Error(
                f"{names} asks about users, but django.contrib.auth is not installed.",
                hint="Add django.contrib.auth and django.contrib.contenttypes to INSTALLED_APPS, or name another "
                "permission, such as SignedURLs.",
                id="durable_streams.E007",
            )
        ]
    if not apps.is_installed("django.contrib.sessions"):
        return [
            Warning(
                f"{names} asks about users. Without sessions, all users are anonymous at the ASGI application.",
                hint="Add django.contrib.sessions to INSTALLED_APPS, or set the user in the ASGI scope.",
                id="durable_streams.W003",
            )
        ]
    middleware = "django.contrib.auth.middleware.AuthenticationMiddleware"
    if has_url_entry_point() and not any(_is_middleware(path, middleware) for path in settings.MIDDLEWARE):
        return [
            Warning(
                f"{names} asks about users. Without AuthenticationMiddleware, all users are anonymous at the URLs.",
                hint="Add SessionMiddleware and AuthenticationMiddleware to MIDDLEWARE. Silence this check if other "
                "middleware sets request.user.",
                id="durable_streams.W004",
            )
        ]
    return []


def _is_middleware(path: str, wanted: str) -> bool:
    try:
        middleware, wanted_class = import_string(path), import_string(wanted)
    except ImportError:
        return False
    return inspect.isclass(middleware) and issubclass(middleware, wanted_class)


def _check_caching(permissions: list[Permission]) -> list[CheckMessage]:
    """W005: CACHE_SCOPE is public, but not everybody may read."""
    if config().cache_scope != "public" or any(is_for_everybody(permission, Action.READ) for permission in permissions):
        return []
    return [
        Warning(
            "CACHE_SCOPE is public, but not everybody may read, so the setting has no effect.",
            hint="Caches revalidate each read. Set CACHE_SCOPE to 'private', or let everybody read.",
            id="durable_streams.W005",
        )
    ]
