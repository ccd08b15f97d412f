"""The one place that allows or refuses requests, before anything looks up the stream.

A guard belongs to one set of settings. It finds the identity of the caller, counts the request against the limits, and
asks the permissions. It does not know how a response is made, and it never says whether a stream exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from django.core import exceptions
from django.core.signals import setting_changed

from ..conf import Config, config
from ..protocol import headers, paths
from ..protocol.errors import DurableStreamsError, NotAuthenticated, PermissionDenied
from ..runtime.lifecycle import call_at_stop
from ..runtime.printable import loggable
from ..runtime.results import as_failure, contained
from . import csrf, workers
from .access_request import AccessRequest
from .asynchronous import answer_of
from .base import Action, is_for_everybody
from .creation_policy import CreationPolicy
from .grants import Grant
from .identities import Identity, IdentityLoader
from .loading import make_permissions
from .permission_checks import (
    ACTION_BY_METHOD,
    CallMode,
    MemoryChecks,
    methods_in_memory,
    permission_check,
)
from .rates import RateLimits
from .refusals import explain_missing_methods, log_refusal, name_of
from .users import User, anonymous
from .verdicts import allows

if TYPE_CHECKING:
    from ..protocol.messages import Request


class Guard:
    """Allows or refuses requests by the settings.

    Attributes:
        everybody_reads: whether everybody may read every stream, except for the registry.
        everybody_lists: whether everybody may list all streams, and read the registry.
        varies_on: the request headers that decide about a read.
        credential_headers: request headers that only a client's own code sends, in lower case.
        needs_task: whether a check may need a task of its own.
        needs_identity: whether a check depends on the caller.
        is_idle: whether the guard would allow everything.
        admit_at_once: admits a request without a wait, and returns whether it has. Otherwise `admit` decides.

    Raises:
        ImproperlyConfigured, ValueError: the settings are invalid.
    """

    def __init__(self, settings: Config) -> None:
        self.permissions = permissions = make_permissions(settings.permission_classes)
        self.identities = IdentityLoader(self.prepare)
        # One permission that allows everything decides, whatever the others say.
        self._allows_everything = any(all(is_for_everybody(one, action) for action in Action) for one in permissions)
        self.everybody_reads = any(is_for_everybody(one, Action.READ) for one in permissions)
        self.everybody_lists = any(is_for_everybody(one, Action.LIST) for one in permissions)
        self._registry_path = settings.registry_path
        varies_on = [name for one in permissions for name in (*one.varies_on, *one.credential_headers)]
        self.varies_on = tuple(dict.fromkeys(varies_on))
        credential_headers = [name for one in permissions for name in one.credential_headers]
        self.credential_headers = frozenset(name.lower().encode("latin-1") for name in credential_headers)
        self._checks = {action: [permission_check(one, action) for one in permissions] for action in Action}
        self.needs_identity = bool(settings.rate_limits) or any(one.needs_user for one in permissions)
        self._anonymous = Identity(anonymous())
        self._rates = RateLimits(settings.rate_limits, settings.rate_limit_cache) if settings.rate_limits else None
        self._creation_policy = CreationPolicy(settings) if CreationPolicy.is_needed(settings) else None
        # A project's own coroutine may need the task that it runs in, as asyncio.timeout does.
        self.needs_task = any(check.mode is CallMode.AWAIT for checks in self._checks.values() for check in checks)
        self.is_idle = self._allows_everything and self._rates is None and self._creation_policy is None
        methods = {} if self._allows_everything or self.needs_identity else methods_in_memory(self._checks)
        if self._creation_policy is not None:
            methods.pop("PUT", None)
        self.admit_at_once = MemoryChecks(
            methods, self._anonymous, self.credential_headers, self.refusal, self._registry_path
        ).admit

    @contained
    def prepare(self, user: User) -> None:
        """Let all permissions load their data about a user. Synchronous."""
        for permission in self.permissions:
            permission.prepare(user)

    def refresh_identity(self, request: Request, identity: Identity) -> Identity | Awaitable[Identity]:
        """Return the current identity of the caller of an earlier request."""
        return self.identities.refresh(request.source, request.headers.get(b"cookie"), identity)

    async def admit(self, request: Request) -> None:
        """Return if a request may go on, and set `request.grant` of a live read.

        Raises:
            InvalidPath, StreamNotFound: no stream can have this path (400, 404).
            NotAuthenticated, PermissionDenied: the request is not allowed (401, 403).
            TooManyRequests: the request exceeds a limit (429).
            UnsupportedContentType: the settings do not allow this content type (415).
            ServiceUnavailable: the identity cannot be checked (503).
        """
        path = paths.validate_again(request.path)
        action = ACTION_BY_METHOD[request.method]
        if self._creation_policy is not None and action is Action.CREATE:
            forks = headers.STREAM_FORKED_FROM in request.headers
            self._creation_policy.check(path, request.headers.get(headers.CONTENT_TYPE), forks=forks)
        if self._allows_everything and self._rates is None:
            return
        access_request = AccessRequest(request, self.credential_headers)
        loaded = self._find_identity(request)
        identity = loaded if isinstance(loaded, Identity) else await loaded
        access_request.caller = identity
        if self._rates is not None:
            for counted in _counted_actions(request, action):
                await self._rates.count(counted, identity, access_request)
        if not self._allows_everything:
            await self._check(request, action, path, identity, access_request)

    async def admit_control(self, request: Request, name: str, action: Action = Action.SUBSCRIBE) -> None:
        """Return if a request may use the subscription of a name, or list the streams below a prefix (`Action.LIST`).

        Raises:
            NotAuthenticated, PermissionDenied: the request is not allowed (401, 403).
            TooManyRequests: the request exceeds a limit (429).
            ServiceUnavailable: the identity cannot be checked (503).
        """
        await self._admit_for(action, request, name, self._rates)

    async def admit_wake_stream(self, request: Request, path: str) -> None:
        """Return if the sender of an admitted request may have the server append wake events to a stream.

        Raises:
            NotAuthenticated, PermissionDenied, ServiceUnavailable: as for `admit_control`.
        """
        await self._admit_for(Action.APPEND, request, path, None)

    async def _admit_for(self, action: Action, request: Request, name: str, rates: RateLimits | None) -> None:
        if self._allows_everything and rates is None:
            return
        access_request = AccessRequest(request, self.credential_headers)
        loaded = self._find_identity(request)
        identity = loaded if isinstance(loaded, Identity) else await loaded
        access_request.caller = identity
        if rates is not None:
            await rates.count(action, identity, access_request)
        if self._allows_everything:
            return
        if identity.ambient and access_request.csrf_failure is not None:
            identity = await self._ignore_credentials(access_request)
        if not await self.is_allowed(action, identity.user, name, access_request):
            raise self.refusal(identity, access_request, name, action)

    async def admit_again(self, request: Request) -> None:
        """Return if a request that was admitted may still go on, now that its body has arrived. Counts no limit.

        Raises:
            NotAuthenticated, PermissionDenied, ServiceUnavailable: as for `admit`.
        """
        if self._allows_everything:
            return
        access_request = AccessRequest(request, self.credential_headers)
        loaded = self._find_identity(request)
        identity = loaded if isinstance(loaded, Identity) else await loaded
        if self.needs_identity:
            refreshed = self.refresh_identity(request, identity)
            identity = refreshed if isinstance(refreshed, Identity) else await refreshed
        access_request.caller = identity
        request.refuse_body = None
        await self._check(request, ACTION_BY_METHOD[request.method], request.path, identity, access_request)

    def _find_identity(self, request: Request) -> Identity | Awaitable[Identity]:
        """Return the identity of the caller: as the entry point knows it, or from the scope or the session."""
        if request.caller is not None:
            caller: Identity = request.caller
            return caller
        if not self.needs_identity:
            return self._anonymous
        cookies = request.headers.get(b"cookie")
        if request.is_bare:
            return self.identities.get_for_cookies(cookies)
        return self.identities.get_for_source(request.source, cookies)

    async def _ignore_credentials(self, access_request: AccessRequest) -> Identity:
        """Return an anonymous identity instead, because another site may have caused the request."""
        access_request.ignore_credentials()
        anonymous_identity = self.identities.get_for_session("")
        return anonymous_identity if isinstance(anonymous_identity, Identity) else await anonymous_identity

    async def _check(
        self, request: Request, action: Action, path: str, identity: Identity, access_request: AccessRequest
    ) -> None:
        if identity.ambient and access_request.csrf_failure is not None:
            identity = await self._ignore_credentials(access_request)
        refuse = partial(self.refusal, identity, access_request, path)
        if action is Action.APPEND:
            await self._check_append(request, path, identity, access_request, refuse)
            return
        if not await self.is_allowed(action, identity.user, path, access_request):
            raise refuse(action)
        if action is Action.CREATE:
            source = request.fork_source()
            if source is not None and not await self.is_allowed(Action.READ, identity.user, source, access_request):
                raise self.refusal(identity, access_request, source, Action.READ)
        elif action is Action.READ and request.is_live:
            request.grant = Grant(self, request, path, identity, access_request)

    async def _check_append(
        self,
        request: Request,
        path: str,
        identity: Identity,
        access_request: AccessRequest,
        refuse: Callable[[Action], DurableStreamsError],
    ) -> None:
        closes = _closes(request)
        if closes and not await self.is_allowed(Action.CLOSE, identity.user, path, access_request):
            raise refuse(Action.CLOSE)
        if await self.is_allowed(Action.APPEND, identity.user, path, access_request):
            return
        if not closes:
            raise refuse(Action.APPEND)
        # A close without data is still allowed. Only the body tells whether there is data.
        request.refuse_body = partial(refuse, Action.APPEND)

    async def is_allowed(self, action: Action, user: User, path: str, access_request: AccessRequest) -> bool:
        """Return whether any of the permissions allows an action."""
        if self.asked_action(action, path) is not action:
            action, path = Action.LIST, ""
        access_request.forget_reasons()
        for check in self._checks[action]:
            try:
                if check.mode is CallMode.IN_LOOP:
                    try:  # without `contained`, which takes longer than most methods
                        granted = check.method(user, path, access_request)
                    except Exception:
                        raise
                    except BaseException as error:
                        raise as_failure(error) from error
                elif check.mode is CallMode.AWAIT:
                    granted = await answer_of(partial(check.method, user, path, access_request))
                else:
                    granted = await cast(
                        "Awaitable[bool]", workers.call(partial(check.method, user, path, access_request))
                    )
                # A decorated method or a callable object may not look asynchronous, and return an awaitable.
                # An awaitable is truthy, so its result must be awaited: in a task, which this request may not have.
                if granted is not True and isawaitable(granted):
                    ask = partial(_call_again, check.mode, partial(check.method, user, path, access_request))
                    granted = await asyncio.ensure_future(answer_of(ask, granted))
            except exceptions.PermissionDenied:
                continue
            if allows(granted, action.method):
                return True
        return False

    def asked_action(self, action: Action, path: str) -> Action:
        """Return the action about which permissions are asked. To read the registry is to list all streams."""
        return Action.LIST if action is Action.READ and path == self._registry_path else action

    def refusal(
        self,
        identity: Identity,
        access_request: AccessRequest,
        path: str,
        action: Action,
        *,
        is_denied: bool = True,
    ) -> DurableStreamsError:
        """Log a refused request and return its error, which does not say whether the stream exists.

        `is_denied` says whether all permissions were asked, and have denied the action.
        """
        failed_csrf = access_request.ignored_credentials or access_request.may_hide_credentials
        reasons = [f"CSRF: {loggable(csrf.without_query(access_request.csrf_failure or ''))}"] if failed_csrf else []
        uses_session = is_denied and any(one.needs_user for one in self.permissions)
        if uses_session and not identity.is_authenticated and not access_request.ignored_credentials:
            reasons.append(access_request.session_failure)
        reasons.append(access_request.unread_token if is_denied else "")
        if is_denied:
            explain_missing_methods(self.permissions, self.asked_action(action, path), access_request)
        deciders = map(name_of, self.permissions) if is_denied else ()
        log_refusal(action.value, path, identity.user, access_request, deciders, reasons)
        challenge = next((permission.challenge for permission in self.permissions if permission.challenge), None)
        if challenge is not None and not identity.is_authenticated and not access_request.ignored_credentials:
            response_headers = ((b"www-authenticate", challenge.encode("latin-1")),)
            return NotAuthenticated("Authentication is required, or the credentials are invalid.", response_headers)
        if failed_csrf:
            return PermissionDenied(f"The CSRF check failed. {csrf.remedy(access_request.csrf_failure or '')}")
        return PermissionDenied("Permission denied.")


async def _call_again(mode: CallMode, method: Callable[[], Any]) -> Any:
    """Return the answer of a method that has returned an awaitable, from another call, in the same kind of thread."""
    answer = method() if mode is CallMode.IN_LOOP else await workers.call(method)
    return await answer if isawaitable(answer) else answer


def _closes(request: Request) -> bool:
    """Return whether an append also closes the stream."""
    closed = request.header(headers.STREAM_CLOSED)
    return closed is not None and headers.is_true(closed)


def _counted_actions(request: Request, action: Action) -> tuple[Action, ...]:
    """Return the actions that one request counts as."""
    return (action, Action.CLOSE) if action is Action.APPEND and _closes(request) else (action,)


_current: tuple[Config, Guard | None] | None = None


def current_guard() -> Guard | None:
    """Return the guard of the current settings, or None if everybody may do everything."""
    global _current
    settings = config()
    current = _current
    if current is None or current[0] is not settings:
        guard = Guard(settings)
        current = _current = settings, None if guard.is_idle else guard
    return current[1]


def existing_guard() -> Guard | None:
    """Return the guard if a request has made one already."""
    return _current[1] if _current is not None else None


def _drop_guard(**kwargs: Any) -> None:
    global _current
    _current = None


setting_changed.connect(_drop_guard, dispatch_uid="durable_streams.guard")
call_at_stop(_drop_guard)
