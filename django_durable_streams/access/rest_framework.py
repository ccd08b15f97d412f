"""Users by the authentication classes of Django REST framework. Needs the extra `drf`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.module_loading import import_string

from ..protocol import headers
from .access_request import AccessRequest
from .ambient_credentials import CredentialVisibility
from .base import Action, Permission, Verdict
from .loading import is_asynchronous, make_permission
from .users import User, anonymous


class RestFramework(Permission):
    """Authenticates by REST framework's classes, and asks another permission about the user.

    The classes run in a thread, for each request.

    A class may take its credentials from any part of a request. So for a change, they count only in one of these cases:

    - The request passes Django's CSRF check.
    - No header shows a browser, and there are no cookies.
    - The class finds no user without `Authorization` and `CREDENTIAL_HEADERS`.

    Args:
        authentication: classes or their dotted paths, such as `rest_framework.authentication.TokenAuthentication`.
            None: the classes of `REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]`.
        permission: the permission that decides about authenticated users: a dotted path, or a dict with `CLASS`. Its
            methods must not be asynchronous.
        credential_headers: headers besides `Authorization` that only a client's own code sends, such as `X-Api-Key`,
            and never a browser or a proxy.

    Raises:
        ValueError: the permission has asynchronous methods, or `credential_headers` is not a list.
    """

    def __init__(
        self,
        *,
        authentication: Iterable[Any] | None = None,
        permission: str | Mapping[str, Any] = "django_durable_streams.permissions.ModelPermissions",
        credential_headers: Iterable[str] = (),
    ) -> None:
        from rest_framework.settings import api_settings  # an optional dependency

        authentication_classes = (
            api_settings.DEFAULT_AUTHENTICATION_CLASSES if authentication is None else authentication
        )
        self._classes = [import_string(entry) if isinstance(entry, str) else entry for entry in authentication_classes]
        self.permission = make_permission(permission)
        if any(is_asynchronous(self.permission, action) for action in Action):
            raise ValueError("A permission behind RestFramework must not have asynchronous methods.")
        if isinstance(credential_headers, str):
            raise ValueError(f"CREDENTIAL_HEADERS must be a list, such as [{credential_headers!r}].")
        names = [name.strip() for name in credential_headers]
        self._client_headers = frozenset([headers.AUTHORIZATION, *(name.lower().encode("latin-1") for name in names)])
        self.credential_headers = (*names, *self.permission.credential_headers)
        self.varies_on = tuple(dict.fromkeys([*Permission.varies_on, *self.permission.varies_on]))
        self.challenge = self._challenge()

    def allowed_paths(self, action: Action, user: User) -> str:
        return self.permission.allowed_paths(action, user)

    def can_create(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.CREATE, user, path, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.READ, user, path, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.APPEND, user, path, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.CLOSE, user, path, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.DELETE, user, path, request)

    def can_subscribe(self, user: User, subscription_id: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.SUBSCRIBE, user, subscription_id, request)

    def can_list(self, user: User, prefix: str, request: AccessRequest) -> Verdict:
        return self._decide(Action.LIST, user, prefix, request)

    def _decide(self, action: Action, user: User, path: str, request: AccessRequest) -> Verdict:
        from rest_framework.exceptions import APIException

        try:
            user = self._user(user, request)
        except (APIException, PermissionDenied) as error:
            request.explain(f"REST framework's authentication refuses the credentials ({type(error).__name__}).")
            return False
        self.permission.prepare(user)
        verdict: Verdict = getattr(self.permission, action.method)(user, path, request)
        return verdict

    def _user(self, user: User, request: AccessRequest) -> User:
        authenticated, authenticator = self._authenticate(user, request, request.visibility)
        if request.csrf_failure is None:
            return authenticated
        if authenticator is None:
            if self._finds_user(user, request, CredentialVisibility.ALL):
                request.ignore_credentials()
        elif request.visibility is CredentialVisibility.NOTHING and self._finds_user(
            user, request, CredentialVisibility.NOTHING, type(authenticator), without=self._client_headers
        ):
            request.ignore_credentials()
            return anonymous()
        return authenticated

    def _finds_user(
        self, user: User, request: AccessRequest, visibility: CredentialVisibility, *classes: Any, **options: Any
    ) -> bool:
        from rest_framework.exceptions import APIException

        try:
            return self._authenticate(user, request, visibility, *classes, **options)[1] is not None
        except (APIException, PermissionDenied):
            return False

    def _authenticate(
        self,
        user: User,
        request: AccessRequest,
        visibility: CredentialVisibility,
        *classes: Any,
        without: Iterable[bytes] = (),
    ) -> tuple[User, Any]:
        """Return the authenticated user, and the authenticator that found it. None: no authenticator did.

        Args:
            user: the user of the session or of middleware, if ambient credentials count.
            visibility: which ambient credentials the authenticators see.
            classes: the classes to ask. None of them: all.
            without: headers that the authenticators do not see.

        Raises:
            APIException, PermissionDenied: an authenticator refuses the credentials.
        """
        from rest_framework.request import Request

        copied_request = request.copy(visibility, without=without)
        copied_request.user = user
        # The CSRF check was made already. If it has failed, the authenticators do not see ambient credentials.
        copied_request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        drf_request = Request(
            copied_request, authenticators=[authentication_class() for authentication_class in classes or self._classes]
        )
        return drf_request.user, drf_request.successful_authenticator

    def _challenge(self) -> str | None:
        """Return the challenge of the first class, as REST framework does. The class must not need the request."""
        for authentication_class in self._classes[:1]:
            challenge = authentication_class().authenticate_header(HttpRequest())
            return str(challenge) if challenge else None
        return None
