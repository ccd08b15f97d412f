"""Authentication classes of Django REST framework. Needs the extra `drf`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.utils.module_loading import import_string

from .base import Action, Permission, User
from .making import is_asynchronous, make_permission
from .request import AccessRequest


class RestFramework(Permission):
    """Finds out who somebody is by REST framework's authentication classes, and leaves the rest to another permission.

    The classes are asked at each request, in a thread.

    Args:
        authentication: classes or their dotted paths, such as `rest_framework.authentication.TokenAuthentication`.
            Those of `REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]` if none are given.
        permission: what those may do who are found: a dotted path, a dict with `CLASS`. Its methods must not be
            asynchronous.

    Raises:
        ValueError: the permission's methods are asynchronous.
    """

    def __init__(
        self,
        *,
        authentication: Iterable[Any] | None = None,
        permission: str | Mapping[str, Any] = "django_durable_streams.permissions.ModelPermissions",
    ) -> None:
        from rest_framework.settings import api_settings  # an optional dependency

        given = api_settings.DEFAULT_AUTHENTICATION_CLASSES if authentication is None else authentication
        self._classes = [import_string(known) if isinstance(known, str) else known for known in given]
        self._permission = make_permission(permission)
        if any(is_asynchronous(self._permission, action) for action in Action):
            raise ValueError("A permission behind RestFramework must not have asynchronous methods.")
        self.challenge = self._challenge()

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._ask(Action.CREATE, user, path, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._ask(Action.READ, user, path, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._ask(Action.APPEND, user, path, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._ask(Action.CLOSE, user, path, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._ask(Action.DELETE, user, path, request)

    def _ask(self, action: Action, user: User, path: str, request: AccessRequest) -> bool:
        from rest_framework.exceptions import APIException

        try:
            user = self._user(user, request)
        except (APIException, PermissionDenied):
            return False
        self._permission.prepare(user)
        return bool(getattr(self._permission, action.method)(user, path, request))

    def _user(self, user: User, request: AccessRequest) -> User:
        from rest_framework.request import Request

        made = Request(_probe(request.http_request, user), authenticators=[known() for known in self._classes])
        return made.user

    def _challenge(self) -> str | None:
        """What the first class asks for. It is that class's to answer without a request."""
        for known in self._classes[:1]:
            found = known().authenticate_header(HttpRequest())
            return str(found) if found else None
        return None


def _probe(request: HttpRequest, user: User) -> HttpRequest:
    """Return a request like this one, of a user, without its body: that is the stream's, and no form to be read here.

    The session's user is in it only if the request has passed the CSRF check, so nobody has to make another one.
    """
    made: HttpRequest
    if isinstance(request, ASGIRequest):
        made = ASGIRequest({**request.scope, "method": request.method}, BytesIO())
    else:
        assert isinstance(request, WSGIRequest)
        made = WSGIRequest({**request.environ, "wsgi.input": BytesIO()})
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        made.META.pop(name, None)
    made.content_type = made.content_params = None
    if hasattr(request, "session"):
        made.session = request.session
    made.user = user
    made._dont_enforce_csrf_checks = True  # type: ignore[union-attr]
    return made
