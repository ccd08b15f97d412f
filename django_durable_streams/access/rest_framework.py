"""Authentication classes of Django REST framework. Needs the extra `drf`."""

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
    """Finds out who somebody is by REST framework's authentication classes, and leaves the rest to another permission.

    The classes are asked at each request, in a thread.

    A class may take its credentials from anywhere, so for a request that changes something they count only if no other
    site can have made a browser send it: if the request passes Django's CSRF check, or does not come from a browser and
    has no cookies, or if the class finds nobody once `Authorization` and CREDENTIAL_HEADERS are left out.

    Args:
        authentication: classes or their dotted paths, such as `rest_framework.authentication.TokenAuthentication`.
            Those of `REST_FRAMEWORK["DEFAULT_AUTHENTICATION_CLASSES"]` if none are given.
        permission: what those may do who are found: a dotted path, a dict with `CLASS`. Its methods must not be
            asynchronous.
        credential_headers: headers besides `Authorization` that only a client's own code sends, such as `X-Api-Key`,
            and never a browser or a proxy.

    Raises:
        ValueError: the permission's methods are asynchronous.
    """

    def __init__(
        self,
        *,
        authentication: Iterable[Any] | None = None,
        permission: str | Mapping[str, Any] = "django_durable_streams.permissions.ModelPermissions",
        credential_headers: Iterable[str] = (),
    ) -> None:
        from rest_framework.settings import api_settings  # an optional dependency

        given = api_settings.DEFAULT_AUTHENTICATION_CLASSES if authentication is None else authentication
        self._classes = [import_string(known) if isinstance(known, str) else known for known in given]
        self._permission = make_permission(permission)
        if any(is_asynchronous(self._permission, action) for action in Action):
            raise ValueError("A permission behind RestFramework must not have asynchronous methods.")
        if isinstance(credential_headers, str):
            raise ValueError(f"CREDENTIAL_HEADERS is a list, such as [{credential_headers!r}].")
        own = [name.strip() for name in credential_headers]
        self._own_headers = frozenset([headers.AUTHORIZATION, *(name.lower().encode("latin-1") for name in own)])
        self.credential_headers = (*own, *self._permission.credential_headers)
        self.varies_on = tuple(dict.fromkeys([*Permission.varies_on, *self._permission.varies_on]))
        self.challenge = self._challenge()

    def can_create(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._ask(Action.CREATE, user, path, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._ask(Action.READ, user, path, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._ask(Action.APPEND, user, path, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._ask(Action.CLOSE, user, path, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> Verdict:
        return self._ask(Action.DELETE, user, path, request)

    def _ask(self, action: Action, user: User, path: str, request: AccessRequest) -> Verdict:
        from rest_framework.exceptions import APIException

        try:
            user = self._user(user, request)
        except (APIException, PermissionDenied):
            return False
        self._permission.prepare(user)
        verdict: Verdict = getattr(self._permission, action.method)(user, path, request)
        return verdict

    def _user(self, user: User, request: AccessRequest) -> User:
        found, authenticator = self._authenticate(user, request, request.shown)
        if request.forged is None:
            return found
        if authenticator is None:
            if self._finds_somebody(user, request, CredentialVisibility.ALL):
                request.withhold()
        elif request.shown is CredentialVisibility.NOTHING and self._finds_somebody(
            user, request, CredentialVisibility.NOTHING, type(authenticator), without=self._own_headers
        ):
            request.withhold()
            return anonymous()
        return found

    def _finds_somebody(
        self, user: User, request: AccessRequest, shown: CredentialVisibility, *classes: Any, **options: Any
    ) -> bool:
        from rest_framework.exceptions import APIException

        try:
            return self._authenticate(user, request, shown, *classes, **options)[1] is not None
        except (APIException, PermissionDenied):
            return False

    def _authenticate(
        self,
        user: User,
        request: AccessRequest,
        shown: CredentialVisibility,
        *classes: Any,
        without: Iterable[bytes] = (),
    ) -> tuple[User, Any]:
        """Return who is found, and by which authenticator, None if by none.

        Args:
            user: whom the session or middleware has found, if that counts.
            shown: how much the authenticators see of what browsers send by themselves.
            classes: those to ask. None: all.
            without: headers that they do not see.

        Raises:
            APIException, PermissionDenied: one of them refuses.
        """
        from rest_framework.request import Request

        probe = request.copy(shown, without=without)
        probe.user = user
        # It has been checked already. Where it has not passed, they do not see what needs the check.
        probe._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        made = Request(probe, authenticators=[known() for known in classes or self._classes])
        return made.user, made.successful_authenticator

    def _challenge(self) -> str | None:
        """What the first class asks for. It is that class's to answer without a request."""
        for known in self._classes[:1]:
            found = known().authenticate_header(HttpRequest())
            return str(found) if found else None
        return None
